"""Assignment 04: the SDE of a schedule, its reverse with the right sign, a walk, a change of
schedule, a likelihood.
"""

import numpy as np
import torch
from dlib import Draw, exact, flow, sub_vp, ve, vp
from dlib.schedule import NoiseSchedule

from book.questions.problems import mixture_of, schedule_of
from book.questions.q04 import Level
from book.truth import Case, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import RIGHT, fitted, malformed, wrong

ROWS = 16
ENOUGH, COARSE = 2e-3, 0.08
"""In nats, over 200 seeds with 80 steps: seven rules of second order or more were off by at most
1.6e-3, Euler's by 3.4e-3 to 0.064, the known mistakes by 0.11 or more.
"""


def schedules(rng: np.random.Generator) -> list[NoiseSchedule]:
    beta = problems.beta(rng)
    return [vp(*beta), sub_vp(*beta), ve(rng.uniform(0.01, 0.05), rng.uniform(10, 50)), flow()]


def level(schedule: NoiseSchedule, t: float) -> Level:
    here = schedule.at(t)
    return Level(here.alpha, here.sigma, *schedule.rates(t))


def problem(rng: np.random.Generator) -> dict:
    """A broad mixture, a VP schedule and points."""
    mixture = problems.mixture(rng, int(rng.integers(2, 4)), stds=(0.5, 0.9))
    x = rng.normal(size=(ROWS, mixture["means"].shape[1]))
    return mixture | {"beta": problems.beta(rng), "x": x}


def times(rng: np.random.Generator) -> dict:
    rows = [level(s, rng.uniform(0.2, 0.8)) for s in schedules(rng) for _ in range(3)]
    return dict(zip(Level._fields, np.array(rows).T.copy()))


SDE = Exact(
    "Q04.1",
    times,
    returns=("f", "g²"),
    hint=(
        "a step multiplies the mean by 1 + f dt, and the mean is α x₀",
        "the variance given x₀, σ², obeys dσ²/dt = 2fσ² + g²",
    ),
    tolerance=1e-8,
    mistakes="""
        return f, → return d_alpha,  # this is α̇: divide by α, the drift is f·x
        return f, → return -f,  # the sign is wrong: noising shrinks the mean, f = α̇/α
        return f, → return -2 * f,
        # this is −2f, the β of the variance-preserving SDE: there f = −½β
        return f, → return d_sigma / sigma,  # this is σ̇/σ: the mean is carried by α
        - 2 * f * sigma**2 →  # this is dσ²/dt alone: part of it is the drift's work, 2fσ²
        - 2 * f → + 2 * f  # the drift's share of dσ²/dt has the wrong sign: g² = dσ²/dt − 2fσ²
        2 * sigma * d_sigma - 2 * f → sigma * d_sigma - f  # half of it: dσ²/dt is 2σσ̇
        2 * sigma * d_sigma → d_sigma**2  # this is (dσ/dt)² − 2fσ²: the slope of σ² is 2σσ̇
        2 * sigma * d_sigma - 2 * f * sigma**2 → -2 * f
        # this is −2f, the β of the variance-preserving SDE: the other schedules have another g²
        2 * sigma * d_sigma - 2 * f * sigma**2 → 2 * d_sigma - 2 * f * sigma
        # this is −2σλ̇: a variance has σ²
        2 * sigma * d_sigma - 2 * f * sigma**2 → -2 * sigma**2 * (alpha / sigma).log()
        # this is −2σ²λ: its slope λ̇ belongs there
        2 * sigma * d_sigma - 2 * f * sigma**2 → 2 * d_sigma / sigma - 2 * f
        # this is −2λ̇: multiply by σ²
        2 * sigma * d_sigma - 2 * f * sigma**2 → (2 * sigma * d_sigma - 2 * f * sigma**2) ** 0.5
        # this is g, the question asks for g²
        - 2 * f → - f  # the drift's share counts twice in a variance: 2fσ²
        2 * sigma * d_sigma - 2 * f → -2 * sigma * d_sigma + 2 * f
        # the sign is wrong: λ falls, so −2σ²λ̇ is positive
    """,
)

DRIFT = Exact(
    "Q04.2",
    lambda rng: problem(rng) | {"t": rng.uniform(0.2, 0.5), "eta": rng.uniform(0.4, 0.8)},
    returns="the drift",
    hint="in dx = [f x − c g² s] dt + η g dw, which c keeps the marginals?",
    tolerance=1e-8,
    mistakes="""
        x - 0.5 → x + 0.5
        # the score has the wrong sign. With t running from 1 to 0, dt is negative: a minus in
        # front of the score climbs towards the data
        f * x - 0.5 → -f * x + 0.5
        # this is the drift for a time that grows while you sample. Here dx/dt is asked, and dt is
        # negative
        - 0.5 * (1 + eta**2) * g2 * score(x) →
        # this is the forward drift: without the score nothing knows the data
        (1 + eta**2) * →  # this is the ODE's drift: the noise ηg needs a further ½η²g²s
        0.5 * (1 + eta**2) * →  # this is the drift of η = 1
        0.5 * →  # the ½ is missing: for η = 0 the factor must be ½
        1 + eta**2 → 1 - eta**2
        # 1 − η² stands where 1 + η² belongs: more noise needs more of the score
        (1 + eta**2) → (1 + eta) ** 2  # the square belongs to η alone: ½(1 + η²), not ½(1 + η)²
        0.5 * (1 + eta**2) → eta**2  # the ODE's ½g²s is missing: η²g²s is right at η = 1 only
        g2 → g2**2  # g2 is g² already
        f * x → f  # f stands where f·x belongs
        eta**2 → eta  # η enters as its square: the variance of the noise is η²g²
        (1 + eta**2) → eta**2
        # the factor is ½(1 + η²), not ½η²: at η = 0 the ODE still needs the score
        g2 → g2**0.5  # g stands where g² belongs
        f * x → -f * x
        # the linear part has the wrong sign: f·x is the same as in the forward SDE
    """,
)


def fall(rng: np.random.Generator) -> dict:
    """Falling times with unequal steps, from 0.9 to 0.2."""
    inputs, lengths = problem(rng), rng.uniform(0.5, 1.5, int(rng.integers(10, 15)))
    falling = 0.9 - 0.7 * np.array([0.0, *lengths.cumsum()]) / lengths.sum()
    noise = rng.normal(size=(len(lengths), *inputs["x"].shape))
    return inputs | {"times": falling, "eta": rng.uniform(0.4, 0.8), "noise": noise}


WALK = Exact(
    "Q04.3",
    fall,
    returns="x at the last time",
    hint="one step is x + (t_b − t_a)·drift + η √(g² (t_a − t_b)) z, drift and g² at x and t_a",
    tolerance=1e-8,
    mistakes="""
        x + dt → x - dt  # the drift has the wrong sign: t falls, t_b − t_a is negative
        + eta * math → + math  # the noise lacks η
        + eta * math → + eta**2 * math  # the noise has η² instead of η
        math.sqrt(g2(t) * -dt) → math.sqrt(g2(t)) * -dt
        # the noise grows with the length of the step: with its square root it should
        math.sqrt(g2(t) * -dt) → g2(t) * math.sqrt(-dt)  # the noise has g² instead of g
        + eta * math.sqrt(g2(t) * -dt) * z →  # the noise is missing
        dt = t_next - t → dt, t = t_next - t, t_next
        # drift and g² are taken at the end of the step: Euler–Maruyama takes them at its start
        * z → * (z if t_next > times[-1] else 0)
        # the noise of the last step is left out: here all of them are asked for
        x = x + dt * drift + eta * math.sqrt(g2(t) * -dt) * z → x = x + dt * drift
        drift = f → x = x + eta * math.sqrt(g2(t) * -dt) * z
                drift = f
        # the noise is added before the score is asked: the score belongs to the x at the start of
        # the step
        (1 + eta**2) * →
        # the drift is the ODE's, the noise is the SDE's: with noise ηg the score's factor is ½(1
        # + η²)g²
        0.5 * (1 + eta**2) * →  # the drift is that of η = 1, the noise has your η
        0.5 * →  # the drift's ½ is missing: the score's factor is ½(1 + η²)g²
        eta**2 → eta  # η enters the drift as its square: ½(1 + η²)g²
        x - 0.5 → x + 0.5
        # the score has the wrong sign: with dt < 0, a minus climbs towards the data
        t_next - t → (times[-1] - times[0]) / len(noise)
        # all steps are taken as equally long: the length of a step is t_a − t_b
        score(x, t) → score(x, t_next)
        # the score is asked at t_b: its time is that of its x, t_a
        times[1:] → times[1:-1]  # the last step is left out: n noises are n steps
        x = x + dt → return x + dt  # this is x after one step: the return stands inside the loop
    """,
)


def two_schedules(rng: np.random.Generator) -> Case:
    """Levels of equal λ; the truth is the exact velocity on each schedule."""
    inputs = problem(rng)
    a, b = (
        schedules(rng)[k] for k in rng.permutation([0, 1, 3])[:2]
    )  # where α = 1, x and y are equal
    t = rng.uniform(0.3, 0.7)
    s, x = b.at_lam(a.at(t).lam).t, torch.tensor(inputs["x"])
    x_b = b.at(s).alpha / a.at(t).alpha * x
    of = lambda schedule, x, t: exact(mixture_of(inputs), schedule)(
        x, schedule.at(t)
    ).velocity.numpy()
    given = {
        "x": inputs["x"],
        "u": of(a, x, t),
        "a": np.array(level(a, t)),
        "b": np.array(level(b, s)),
    }
    return Case(given, facts={"values": [x_b.numpy(), of(b, x_b, s)]})


MOVE = Exact(
    "Q04.4",
    two_schedules,
    returns=("x_b", "u_b"),
    hint=(
        "y = x/α is the same on both",
        "solve x = α x₀ + σ ε and u = α̇ x₀ + σ̇ ε for x₀ and ε: both schedules share them",
    ),
    truth=lambda case: case.facts["values"],
    tolerance=1e-8,
    mistakes="""
        return b.alpha * x0 + b.sigma * eps → return x
        # x is not the same on both schedules: y = x/α is
        return b.alpha * x0 + b.sigma * eps → return x * a.alpha / b.alpha
        # the ratio is upside down: x_b/α_b = x_a/α_a
        return b.alpha * x0 + b.sigma * eps → return x / a.alpha
        # this is y, without a schedule: multiply by α_b
        return b.alpha * x0 + b.sigma * eps → return x0
        # this is x₀, the data prediction: noise it again to level b
        b.d_alpha * x0 + b.d_sigma * eps → u  # the velocity is not the same: the clocks differ
        b.d_alpha * x0 + b.d_sigma * eps → u * b.alpha / a.alpha
        # the scale is right, but not the clock: b passes the same κ at another speed
        b.d_alpha * x0 + b.d_sigma → (b.d_sigma - b.sigma * b.d_alpha / b.alpha) / b.alpha
        # this is dy/dt on b, without α: u_b = α̇_b x₀ + σ̇_b ε
        b.d_alpha * x0 + b.d_sigma * eps
        → u * a.alpha / det * (b.d_sigma - b.sigma * b.d_alpha / b.alpha)
        # only the part with ε goes with the clock: α̇_b·y + α_b·κ̇_b·ε, not all of u
        b.d_alpha * x0 + b.d_sigma * eps → b.alpha * eps - b.sigma * x0
        # this is v = αε − σx₀, which knows no time: u_b = α̇_b x₀ + σ̇_b ε
        b.d_alpha * x0 + b.d_sigma → (b.d_sigma - b.sigma * b.d_alpha / b.alpha)
        # the linear part is missing: α_b·dy/dt and α̇_b·y
        b.d_alpha * x0 + b.d_sigma * eps → b.d_sigma * x0 + b.d_alpha * eps
        # σ̇ and α̇ are exchanged: u_b = α̇_b x₀ + σ̇_b ε
        b.d_alpha * x0 + b.d_sigma * eps → eps - x0
        # this is ε − x₀, the velocity on the straight schedule only
        b.d_alpha * x0 + b.d_sigma * eps → b.alpha * x0 + b.sigma * eps
        # this is x_b, not its velocity
    """,
)


def noisy_points(rng: np.random.Generator) -> dict:
    inputs = problem(rng)
    a = schedule_of(inputs).at(0.1)
    x0 = mixture_of(inputs).sample(ROWS, Draw(int(rng.integers(1 << 30))))[0].numpy()
    x = a.alpha * x0 + a.sigma * rng.normal(size=x0.shape)
    return inputs | {"x": x, "times": np.linspace(0.1, 0.7, 81)}


def _truth(case: Case) -> list:
    a, x = schedule_of(case.inputs).at(0.1), torch.tensor(case.inputs["x"])
    return [mixture_of(case.inputs).log_prob(x, a).numpy()]


def _nats(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """Any rule of second order."""
    outputs = fitted(outputs, case.values)
    bad = malformed(outputs, ("log p",), case.values)
    if bad:
        return bad
    off = np.abs(outputs[0] - case.values[0]).max()
    if off < ENOUGH:
        return RIGHT
    if off < COARSE:
        return wrong(
            f"off by {off:.1e} nats: close, but not accurate enough. Euler's rule is off by so "
            "much with these steps: take the midpoint, Heun's rule or Runge–Kutta, for x and for "
            "the integral",
            0.5,
        )
    tried = (
        why for why, found in case.mistakes() if np.abs(outputs[0] - found[0]).max() < COARSE
    )
    return wrong(f"off by {off:.2g} nats: {next(tried, q.hint)}")


DENSITY = Exact(
    "Q04.5",
    noisy_points,
    returns="log p",
    hint="log p_a(x_a) = log p_b(x_b) + ∫ ∇·u dt along the path from x_a to x_b",
    truth=_truth,
    verdict=_nats,
    mistakes="""
        log_prior(x) + change → log_prior(x) - change
        # the integral of the divergence has the wrong sign: a flow that contracts towards the
        # noise makes the density there larger
        log_prior(x) + change → log_prior(x)  # the integral of the divergence is missing
        change = 0 → change, start = 0, x
        log_prior(x) → log_prior(start)
        # the prior is taken at x itself: follow the ODE to the last time first
        row[:, i] → row.sum(1)
        # the divergence is the sum of the Jacobian's diagonal, not of all its entries (grad of
        # u.sum() gives those)
        log_prior(x) + change → log_prior(x) + change / x.shape[1]
        # the divergence is averaged over the coordinates instead of summed
        log_prior(x) + change → change
        # this is the integral alone: add the log density at its end
        log_prior(x) + change → (log_prior(x) + change).exp()
        # this is the density: its logarithm is asked for
    """,
)

QUESTIONS = [SDE, DRIFT, WALK, MOVE, DENSITY]
