"""Assignment 01: a mixture's score, Tweedie's formula, two losses and a sampler."""

from dataclasses import replace

import numpy as np
import torch
from dlib import CLEAN, energy_score

from book.questions.problems import mixture_of
from book.truth import Case, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import RIGHT, apart, exactly, trainable, wrong

ROWS, FAR = 24, 8


def mixture(rng: np.random.Generator, d: int) -> dict[str, np.ndarray]:
    """Overlapping modes with unequal weights and widths."""
    return problems.mixture(rng, d, int(rng.integers(3, 6)), (0.4, 1.2))


def points(rng: np.random.Generator) -> dict:
    """Points among the modes, and some so far away that every density underflows."""
    d = int(rng.integers(2, 5))
    x = rng.normal(size=(ROWS, d))
    x[-FAR:] *= 80 / np.linalg.norm(x[-FAR:], axis=1, keepdims=True)
    return {"x": x} | mixture(rng, d)


def _by_autograd(case: Case) -> list:
    mixed = mixture_of(case.inputs)
    score = energy_score(lambda x: -mixed.log_prob(x, CLEAN))
    return [score(torch.tensor(case.inputs["x"])).detach().numpy(), np.array(0.0)]


def _far(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """Half of the points for what is right among the modes, and not far away from them."""
    if len(outputs) == 2 and outputs[1].any():
        return wrong(
            "this needs autograd (it fails under torch.inference_mode). Derive ∇ log p on paper "
            "and code the formula"
        )
    whole = replace(case, values=case.values[:1])
    if not outputs or outputs[0].shape != case.values[0].shape:
        return exactly(q, whole, outputs[:1], calls)
    near = lambda arrays: [arrays[0][:-FAR]]
    inside = replace(
        case,
        values=near(case.values),
        mistakes=lambda: [(why, near(found)) for why, found in case.mistakes()],
    )
    said = exactly(q, inside, near(outputs), calls)
    if said is not RIGHT or apart([outputs[0][-FAR:]], [case.values[0][-FAR:]]) < q.tolerance:
        return said
    return wrong(
        "right among the modes, wrong (or nan) 80 units away from them: there every density "
        "underflows to 0, and 0/0 is no responsibility. Take torch.softmax of the logarithms log "
        "w_k + log N_k(x)",
        0.5,
    )


SCORE = Exact(
    "Q01.1",
    points,
    returns="the score",
    hint="differentiate log Σ_k w_k N_k on paper first: each mode pulls by (μ_k − x)/S_k², times "
    "its share of p(x)",
    truth=_by_autograd,
    tolerance=1e-6,
    verdict=_far,
    mistakes="""
        return ( → return -(
        # the sign is wrong: each mode pulls x towards its mean, by (μ_k − x)/S_k²
        stds[:, None] ** 2 → stds[:, None]  # each mode's slope is divided by S_k instead of S_k²
        / stds[:, None] ** 2 →  # each mode's slope is not divided by S_k²
        share[:, :, None] → weights[:, None]
        # the modes are averaged with their weights w_k. At x they count by their share of p(x),
        # w_k N_k(x)/p(x)
        weights.log() - → -  # the responsibilities lack the weights w_k
        - x.shape[1] * stds.log() →
        # the responsibilities lack the Gaussians' normaliser: with unequal S_k it does not
        # cancel, a factor S_k^(−d)
        x.shape[1] * →  # the Gaussians' normaliser has S_k^(−1): in d dimensions it is S_k^(−d)
        torch.softmax(log_joint, 1)
        → torch.nn.functional.one_hot(log_joint.argmax(1), len(weights))
        # only the likeliest mode pulls: between modes all of them do, each by its responsibility
        torch.softmax(log_joint, 1) → log_joint.exp() / (2 * math.pi) ** (x.shape[1] / 2)
        # this is ∇p, not ∇ log p: divide by p(x)
        offset = means - x[:, None] → offset, stds = means - x[:, None], stds.sqrt()
        # stds is taken for the variances: they are its squares, S_k²
        square / 2 → square  # the ½ in the exponent of the Gaussians is missing
        (log_joint, 1) → (log_joint, 0)
        # the softmax runs over the points: it must run over the modes, the other dimension
    """,
)


def noisy(rng: np.random.Generator) -> dict:
    d = int(rng.integers(2, 5))
    return {"x": 1.5 * rng.normal(size=(ROWS, d)), "sigma": rng.uniform(0.3, 0.9)} | mixture(
        rng, d
    )


DENOISE = Exact(
    "Q01.2",
    noisy,
    returns="E[x₀|x]",
    hint="the posterior mean is x + σ² ∇ log p_σ(x), and p_σ is again a mixture: which of its "
    "numbers does noise change?",
    mistakes="""
        stds**2 + sigma**2 → stds**2
        # the score is that of p, not of p_σ: noise widens every mode to the variance S_k² + σ²
        stds**2 + sigma**2 → (stds + sigma) ** 2
        # standard deviations are added: variances add, S_k² + σ²
        stds**2 + sigma**2 → (stds**2 + sigma**2) ** 2
        # S_k² + σ² is the variance of a mode: where a standard deviation is wanted, take its root
        stds**2 + sigma**2 → stds + sigma**2
        # stds is taken for the variances: they are its squares, S_k²
        x + sigma**2 → x + sigma  # the score is multiplied by σ instead of σ²
        x + sigma**2 → x - sigma**2
        # Tweedie's formula has a plus: the score points back to the data
        x + sigma**2 * score → share @ means
        # the posterior mean within a mode is not μ_k: it lies between μ_k and x
        x + sigma**2 * score → score
        # this is the score of p_σ: Tweedie's formula makes the posterior mean of it
        x + sigma**2 * score → -sigma * score
        # this is E[z|x], the noise: subtract σ times it from x
    """,
)


def field(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The numbers of a small vector field."""
    d = int(rng.integers(3, 6))
    return {
        "inner": rng.normal(size=(d, 7)) / d**0.5,
        "outer": rng.normal(size=(7, d)),
        "x": rng.normal(size=(ROWS, d)),
    }


IMPLICIT = Exact(
    "Q01.3",
    field,
    returns="the loss",
    hint="for one sample it is ½ Σ_i s_i² + Σ_i ∂s_i/∂x_i: check it on s(x) = −x, where it is "
    "½‖x‖² − d",
    verdict=trainable(0.5),
    mistakes="""
        / 2 + trace → / 2 - trace
        # the trace has the wrong sign: the loss then has a minimum at −∇ log p
        / 2 + trace → + trace
        # the ½ in front of ‖s‖² is missing: the minimum is then at half the score
        s.square().sum(1) / 2 + trace → (s.square().sum(1) + trace) / 2
        # the ½ belongs to ‖s‖² alone
        gradient[:, i] → gradient.sum(1)
        # all entries of the Jacobian are summed: the gradient of s.sum() mixes outputs, take that
        # of each s_i and of it the entry i
        s.square().sum(1) → s.norm(dim=1)  # ‖s‖ is not squared
        s.square().sum(1) / 2 + trace → (s.square().sum(1) / 2 + trace) / x.shape[1]
        # the average over the coordinates stands where their sum belongs
        / 2 + trace → / 2  # the trace is missing
        return s.square().sum(1) / 2 + trace → return (s.square().sum(1) / 2 + trace).detach()
        # Autograd sees nothing of them: no torch.no_grad(), and no .detach(), .item() or .data of
        # what score returns
        create_graph=True → retain_graph=True
        # Autograd does not see the trace: torch.autograd.grad(…, create_graph=True), and no
        # .detach() or .item() of what it returns
        s.square() → s.detach().square()
        # Autograd does not see ½‖s‖²: no .detach(), .item() or .data of s
    """,
)


def denoising(rng: np.random.Generator) -> dict:
    inputs = field(rng)
    return inputs | {"z": rng.normal(size=inputs["x"].shape), "sigma": rng.uniform(0.3, 0.8)}


VINCENT = Exact(
    "Q01.4",
    denoising,
    returns="the loss",
    hint="for one sample it is ½ ‖s(x₀ + σz) + z/σ‖²",
    verdict=trainable(2 / 3),
    mistakes="""
        + z / sigma → - z / sigma
        # the target has the wrong sign: noise z moved x away from the data, the score −z/σ points
        # back
        z / sigma → z  # the target is −z/σ: the division by σ is missing
        z / sigma → z / sigma**2  # z is divided by σ²: x − x₀ is σz, so (x₀ − x)/σ² is −z/σ
        x0 + sigma * z → x0  # the score is asked at x₀: it must see the noisy x₀ + σz
        sigma * z → z  # z is added without its σ
        / 2 →  # the ½ is missing
        residual.square() → sigma**2 * residual.square()
        # this has the weight σ² of diffusion models, Vincent's loss has none
        .sum(1) → .mean(1)  # the average over the coordinates stands where their sum belongs
        residual.square().sum(1) → residual.norm(dim=1)  # the norm is not squared
        residual.square() → residual.detach().square()
        # Autograd sees nothing of them: no torch.no_grad(), and no .detach(), .item() or .data of
        # what score returns
    """,
)


def chain(rng: np.random.Generator) -> dict:
    noise = rng.normal(size=(int(rng.integers(10, 20)), ROWS, 2))
    start = {"x": 2 * rng.normal(size=(ROWS, 2)), "step": rng.uniform(0.02, 0.06)}
    return start | {"noise": noise} | mixture(rng, 2)


LANGEVIN = Exact(
    "Q01.5",
    chain,
    returns="x after the last step",
    hint="one step is x ← x + η s(x) + √(2η) z_k, for each k in turn",
    mistakes="""
        math.sqrt(2 * eta) → math.sqrt(eta)
        # the noise has the factor √η, it should be √(2η): drift η belongs to the variance 2η
        math.sqrt(2 * eta) → 2 * eta  # the noise has the factor 2η, the variance: take its root
        math.sqrt(2 * eta) → eta  # the noise has the factor η: its standard deviation is √(2η)
        eta * score → eta / 2 * score  # the drift has the factor η/2: that belongs to noise √η
        eta * score → eta / 2 * score
        math.sqrt(2 * eta) → math.sqrt(eta)
        # this is NCSN's convention, drift η/2 and noise √η: here they are η and √(2η)
        math.sqrt(2 * eta) → math.sqrt(2) * eta
        # the noise has the factor √2·η: the root belongs to η as well, √(2η)
        x = x + → return x +  # this is a single step: is the return inside the loop?
        in noise → in [*noise[:-1], 0]  # the noise of the last step is left out
        x + eta → x - eta  # the sign of the drift is wrong: it walks downhill
        score(x) → drift
        for z → drift = score(x)
            for z
        # the score is asked once, at the start: ask anew at each step
        * z → * noise[0]  # every step uses the same noise: step k has its own, noise[k]
        + math.sqrt(2 * eta) * z →  # the noise is missing: this is gradient ascent
        x = x + eta * score(x) + math.sqrt(2 * eta) * z → x = x + math.sqrt(2 * eta) * z
                x = x + eta * score(x)
        # the noise is added before the score is asked: ask at x, then add both
    """,
)

QUESTIONS = [SCORE, DENOISE, IMPLICIT, VINCENT, LANGEVIN]
