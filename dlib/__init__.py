"""dlib: every method of Diffusion, Distilled, once. Read it in the order of the imports below.

Six nouns — `NoiseSchedule`, `NoiseLevel`, `Denoiser`, `Prediction`, `Solver`, `Loss` — and one
rule: state lives in arguments and return values. Time t is 1 at noise and 0 at data; x_t = α
x₀ + σ ε; λ = log(α/σ); ω = 0 is no guidance.
"""

from dlib._util import Draw
from dlib.schedule import (
    CLEAN,
    NoiseLevel,
    NoiseSchedule,
    cosine,
    discrete,
    edm,
    flow,
    scaled_linear,
    sub_vp,
    ve,
    vp,
)
from dlib.grids import grid, levels
from dlib.mixtures import NULL, Mixture
from dlib.lora import adapters, load_adapters, merged, twin
from dlib.denoiser import Denoiser, counted, exact, frozen, guided
from dlib.prediction import Prediction
from dlib.conversion import converted
from dlib.boundaries import boundary, edm_boundary, lcm_scalings
from dlib.guidance import between, rescaled, thresholded
from dlib.solvers import SOLVERS, annealed_langevin, langevin, reference, sample, transition, walk
from dlib.likelihood import bound, decoder_nats, log_likelihood, normal_log_prob, step_kl
from dlib.parallel import Parallel, anderson, parareal, picard
from dlib.rollout import generate
from dlib.losses import (
    Batch,
    Loss,
    consistency,
    denoising,
    denoising_score_matching,
    energy_score,
    fake_score,
    optimal_coupling,
    sds,
    trajectory_consistency,
    vsd,
)
from dlib.recipes import Part, Phase, Recipe, Sampler
from dlib.training import Cast, Ema, Judge, Roles, cast, perform, train
