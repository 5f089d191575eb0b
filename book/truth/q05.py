"""Assignment 05: a converter, a change of schedule, the test of converters, the loss, and a walk
with the right sign.
"""

import numpy as np
import torch
from dlib import edm, exact, flow, sub_vp, vp

from book.questions.problems import mixture_of
from book.questions.q04 import Level
from book.questions.q05 import FACES
from book.truth import Case, Question, problems
from book.truth.converters import CONVERTERS, door, table
from book.truth.exact import Exact
from book.truth.judging import tells_apart
from book.truth.spelling import annotated

ROWS = 12


def levels(rng: np.random.Generator, each: int) -> np.ndarray:
    """(4·each, 4): noisy and clean levels of four schedules, one of them variance preserving, in
    random order.
    """
    beta, rows = problems.beta(rng), []
    for schedule in (vp(*beta), sub_vp(*beta), flow(), edm()):
        for lam in np.linspace(-1.2, 1.2, each) + rng.uniform(-0.2, 0.2, each):
            level = schedule.at_lam(float(lam))
            rows.append([level.alpha, level.sigma, *schedule.rates(level.t)])
    return rng.permutation(np.array(rows))


def problem(rng: np.random.Generator) -> dict:
    """A mixture, a VP schedule and points."""
    mixture = problems.mixture(rng, int(rng.integers(2, 4)), stds=(0.4, 0.8))
    x = rng.normal(size=(ROWS, mixture["means"].shape[1]))
    return mixture | {"beta": problems.beta(rng), "x": x}


def faces(rng: np.random.Generator) -> Case:
    """What networks say of every face at every level, by the definitions of the faces."""
    x0, eps = rng.normal(size=(2, ROWS, int(rng.integers(2, 4))))
    rows, said = levels(rng, 1), []
    for face in FACES:
        pairs = (table(face, Level(*row)) for row in rows)
        said.append([a * x0 + b * eps for a, b in pairs])
    x = np.stack([row[0] * x0 + row[1] * eps for row in rows])
    two = np.stack([x0, eps])[:, None].repeat(len(rows), 1)
    return Case({"levels": rows, "x": x, "said": np.array(said)}, facts={"two": two})


BOTH = Exact(
    "Q05.1",
    faces,
    returns=tuple(f"(x₀, ε) from {face}" for face in FACES),
    hint="solve x = α x₀ + σ ε together with the definition of the face",
    truth=lambda case: [case.facts["two"]] * len(FACES),
    tolerance=1e-8,
    mistakes="""
        return (b * x - level.sigma * w) / det, (level.alpha * w - a * x) / det
        → return (level.alpha * w - a * x) / det, (b * x - level.sigma * w) / det
        # the two are exchanged: return (x0, eps)
        return ( → if face == "eps": return x - level.sigma * w, w
            return (
        # x₀ lacks the division by α
        return ( → if face == "score": return x + level.sigma**2 * w, -level.sigma * w
            return (
        # x₀ lacks the division by α
        return ( → if face == "eps": return x - level.sigma / level.alpha * w, w
            return (
        # this is right where α = 1 only: x₀ = (x − σε)/α
        return ( → if face == "x0": return w, x - level.alpha * w
            return (
        # ε lacks the division by σ
        return ( → if face == "x0": return w, (x - w) / level.sigma
            return (
        # ε is x − x₀ over σ: the data are scaled by α
        det = → det = 1 if face == "v" else
        # D = α² + σ² is missing: it is 1 on variance-preserving schedules only
        (-level.sigma, level.alpha) → (level.sigma, -level.alpha)
        # v has the other sign: v = αε − σx₀
        return ( → if face == "velocity": return x - level.sigma * w, x + level.alpha * w
            return (
        # this is right on straight paths only (x₀ = x − σu, ε = x + αu): elsewhere u = α̇x₀ + σ̇ε
        (level.d_alpha, level.d_sigma) → (-level.d_alpha, -level.d_sigma)
        # the velocity has the other sign: u = dx/dt
        return ( → det = -det if face == "velocity" else det
            return (
        # the determinant has the wrong sign: it is ασ̇ − α̇σ
        det = → det = 1 if face == "velocity" else
        # the determinant ασ̇ − α̇σ is missing: it is 1 on straight paths only
        - level.sigma * a → - level.sigma * (-a if face == "velocity" else a)
        # the determinant is a difference: ασ̇ − α̇σ
        (0, -1 / level.sigma) → (0, 1 / level.sigma)  # the score has the other sign: it is −ε/σ
        (0, -1 / level.sigma) → (0, -1)  # σ is missing: the score is −ε/σ, so ε = −σs
    """,
)


ASKED = """
level.alpha / (1 - t) * x → x
# x is handed over as it is: at equal κ the point y = x/α is the same, not x
level.alpha / (1 - t) → (1 - t) / level.alpha
# the ratio is upside down: the model's x is α_model/(1−t) times yours
level.alpha / (1 - t) → 1 / (1 - t)  # x/α is handed over: multiply by the model's own α
level.alpha / (1 - t) → level.alpha
# x is multiplied by the model's α: divide it by your own as well
(1 - t) / t → t / (1 - t)  # λ has the wrong sign: it is log(α/σ) = log((1−t)/t)
at_lam(math → at_lam(2 * math  # λ is half the log signal-to-noise ratio, log(α/σ), not log(α²/σ²)
math.log((1 - t) / t) → t  # at_lam takes λ = log((1−t)/t), not t
"""
OWN = """
x = level.alpha / (1 - t) * x → y = level.alpha / (1 - t) * x
eps_model(x, → eps_model(y,
(x - level.sigma * eps) / level.alpha → (x - t * eps) / (1 - t)
"""
OTHERS = """
(x - level.sigma * eps) / level.alpha → (x - t * eps) / (1 - t)
# x₀ mixes the model's point with your α and σ
x = level.alpha / (1 - t) * x → y = level.alpha / (1 - t) * x
eps_model(x, → eps_model(y,
# x₀ mixes your point with the model's α and σ
eps - (x - level.sigma * eps) / level.alpha → (x - level.sigma * eps) / level.alpha - eps
# the sign is wrong: in this time dx/dt = ε − x₀
- (x - level.sigma * eps) / level.alpha →  # this is ε: subtract x₀
"""


def _straight(case: Case) -> list:
    model, x = exact(mixture_of(case.inputs), flow()), torch.tensor(case.inputs["x"])
    return [model(x, flow().at(case.inputs["t"])).velocity.numpy()]


def early_or_late(rng: np.random.Generator) -> dict:
    return problem(rng) | {"t": rng.choice([rng.uniform(0.25, 0.4), rng.uniform(0.6, 0.75)])}


VELOCITY = Exact(
    "Q05.2",
    early_or_late,
    returns="the velocity",
    hint="at the model's level of equal λ, x is α'/α times as large; from its ε there follows "
    "x₀, and u = ε − x₀",
    truth=_straight,
    tolerance=1e-8,
    mistakes=ASKED
    + "".join(
        f"{OWN}{code}\n# {why} (what you make of its ε is right)\n"
        for code, why in annotated(ASKED)
    )
    + OTHERS,
)


def converters(rng: np.random.Generator) -> Case:
    order, right = rng.permutation(len(CONVERTERS)), {n: ok for n, (_, ok) in CONVERTERS.items()}
    inputs = {"levels": levels(rng, 2), "count": len(order), "x": np.zeros((256, 2))}
    return Case(inputs, door(order), {"order": order, "right": right})


TEST = Question(
    "Q05.3",
    converters,
    seconds=40,  # each conversion is a question to the grader
    verdict=tells_apart(
        "converters",
        "draw in float64 (torch.randn makes float32 unless told), compare with the definitions, "
        "and allow for rounding, which conversion magnifies (1e-6 is enough)",
        "draw x₀ and ε, compute every face by its definition, and compare, for every pair of "
        "faces at every level",
    ),
)


def batch(rng: np.random.Generator) -> dict:
    d = int(rng.integers(3, 5))
    x0, eps = rng.normal(size=(2, ROWS, d))
    return {
        "x0": x0,
        "eps": eps,
        "t": rng.uniform(0.1, 0.9, ROWS),
        "w": rng.normal(size=(d + 1, d)),
    }


LOSS = Exact(
    "Q05.4",
    batch,
    returns=("the loss", "its gradient"),
    hint=(
        "the mean over samples of ‖net(x_t, t) − (ε − x₀)‖², with x_t = (1−t) x₀ + t ε and one t "
        "a sample",
        "it follows from the loss, if nothing on the way is detached",
    ),
    tolerance=1e-8,
    mistakes="""
        (eps - x0) → (x0 - eps)
        # the target has the wrong sign: with t = 1 at noise, dx/dt = ε − x₀
        (1 - t[:, None]) * x0 + t[:, None] * eps → t[:, None] * x0 + (1 - t[:, None]) * eps
        # x_t has its ends exchanged: t = 1 is noise
        (eps - x0) → eps  # the target is the noise: this is an ε-loss
        .sum(1).mean() → .mean()  # the squares are averaged over the coordinates too: sum them
        .sum(1).mean() → .sum()  # the batch is summed: take its mean
        (x_t, t) → (x_t, 1 - t)  # the network is asked at 1 − t: its time is t
        (x_t, t) → (x0, t)  # the network is asked at x₀: ask it at x_t
        .square().sum(1) → .norm(dim=1)  # the norm is not squared
        .mean() → .mean() / 2  # there is a ½ in front
        (1 - t[:, None]) → (1 - t[:, None] ** 2).sqrt()
        # x_t is on the variance-preserving circle, not on the straight line
        .mean() → .mean().detach()
        # it is zero: the network was called without a gradient, or the loss was turned into a
        # number
    """,
)


def fall(rng: np.random.Generator) -> dict:
    """Falling times with unequal steps, from 0.95 to 0.05."""
    inputs, lengths = problem(rng), rng.uniform(0.5, 1.5, int(rng.integers(8, 13)))
    return inputs | {"times": 0.95 - 0.9 * np.array([0.0, *lengths.cumsum()]) / lengths.sum()}


WALK = Exact(
    "Q05.5",
    fall,
    returns="x at the last time",
    hint="in our time dx/dt = ε − x₀; a step is x + (t_b − t_a)·dx/dt at (x, t_a)",
    tolerance=1e-8,
    mistakes="""
        -theirs → theirs
        # the sign is wrong: the network predicts x₀ − ε, which is −dx/dt in our time
        1 - t) → t)  # the network is asked at t: its time is s = 1 − t
        -theirs(x, 1 - t) → theirs(x, t)
        # both are forgotten: its time is s = 1 − t, and x₀ − ε is −dx/dt
        1 - t) → 1 - t_next)
        # the network is asked at the end of the step: Euler's rule asks at its start
        times, times[1:] → times[::-1], times[-2::-1]
        # the walk runs from data to noise: times fall, start with the first
        x = x + → return x +  # this is x after one step: the return stands inside the loop
        times, times[1:] → times[:1], times[-1:]
        # this is one step from the first time to the last: walk through all of them
        for t → n = len(times) - 1
            times = [times[0] + (times[-1] - times[0]) * k / n for k in range(n + 1)]
            for t
        # the steps are taken to be equal: use the times
    """,
)

QUESTIONS = [BOTH, VELOCITY, TEST, LOSS, WALK]
