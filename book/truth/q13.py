"""Assignment 13: a boundary, a loss, skipped steps, phases, and sampling with new noise."""

from dataclasses import replace

import numpy as np

from book.questions.q13 import PHASES
from book.truth import Case, Verdict, problems
from book.truth.exact import Exact
from book.truth.judging import apart, distance, exactly, trainable, wrong

ROWS, STEPS = 24, 12


def boundary(rng: np.random.Generator) -> dict:
    low, sigma_d = rng.uniform(0.01, 0.1), rng.uniform(0.3, 0.8)
    kappa = np.concatenate([[low], low * np.exp(rng.uniform(0, 8, 20))])
    return {"kappa": kappa, "kappa_min": low, "sigma_d": sigma_d}


def _at_the_end(wanted: float):
    return lambda case, values, truths: (
        f"at κ_min it is {values[0][0]:.3g}, wanted {wanted:g}"
        if abs(values[0][0] - wanted) > 1e-9
        else "right at κ_min, not beyond"
    )


BOUNDARY = Exact(
    "Q13.1",
    boundary,
    returns=("c_skip", "c_out"),
    hint=(_at_the_end(1), _at_the_end(0)),
    mistakes="""
        (beyond**2 → (kappa**2
        # κ stands where κ − κ_min belongs: it must be 1 at κ_min, not at 0
        return skip, → return
        .sqrt() → .sqrt(), skip
        # the two values are in the wrong order: c_skip comes first
        (beyond**2 + sigma_d**2) → (beyond**2 + sigma_d)  # σ_d is not squared
        sigma_d**2 / (beyond**2 + sigma_d**2) → sigma_d / (beyond**2 + sigma_d**2).sqrt()
        # the root is too much: it is σ_d²/((κ − κ_min)² + σ_d²)
        sigma_d**2 / ( → beyond**2 / (  # this is 1 − c_skip: it must be 1 at κ_min
        sigma_d * beyond → sigma_d * kappa
        # κ stands where κ − κ_min belongs, in front of the root: it must be 0 at κ_min
        (kappa**2 → (beyond**2
        # under the root stands κ, not κ − κ_min: that part is EDM's, whose network sees x/√(κ² +
        # σ_d²)
        sigma_d * beyond → beyond
        # the factor σ_d is missing. (LCM's released code leaves it out, this is the paper's)
        sigma_d * beyond / (kappa**2 → beyond / (beyond**2
        # the factor σ_d is missing, and under the root stands κ, not κ − κ_min
        .sqrt() →  # the root is missing
        sigma_d * beyond / (kappa**2 + sigma_d**2).sqrt() → 1 - skip
        # 1 − c_skip is not c_out: the network's output has unit variance, and is scaled to what
        # is missing
        sigma_d * beyond / (kappa**2 + sigma_d**2).sqrt() → (1 - skip**2).sqrt()
        # this is the square root of 1 − c_skip²: the network's output is scaled by σ_d(κ −
        # κ_min)/√(κ² + σ_d²)
    """,
)


def path(rng: np.random.Generator) -> dict:
    """A schedule with levels of unequal steps, and a batch of points."""
    lams = np.cumsum([rng.uniform(-3, -2.5), *rng.uniform(0.2, 0.6, STEPS)])
    return {"beta": problems.beta(rng), "lams": lams, "x": rng.normal(size=(ROWS, 2))}


def student(rng: np.random.Generator) -> dict:
    weights = {"inner": rng.normal(size=(3, 7)), "outer": rng.normal(size=(7, 2))}
    return path(rng) | weights | {"place": int(rng.integers(STEPS - 1))}


LOSS = Exact(
    "Q13.2",
    student,
    returns="the loss",
    hint="compare f(x_a) at level a with f(x̂_b) at level b, where x̂_b is one step of the teacher",
    verdict=trainable(0.4),
    mistakes="""
        with torch.no_grad() → if True
        # the gradient also flows through the target. Stop it: .detach() of f at the cleaner
        # level, or torch.no_grad() around it
        with torch.no_grad() → if True
        f(x, a) → f(x, a).detach()
        # the stop-gradient is on the wrong side: it is the target, f at the cleaner level, that
        # must be constant
        f(x, a) → f(x, a).detach()
        # no gradient reaches the weights at all: only the target's side is constant
        f(step(x, a, b), b) → f(step(x, a, b), a)
        # the target is told that x̂ is at level a: it is at level b
        f(step(x, a, b), b) → f(x, b)
        # the target is asked at the old x: ask it at what the teacher's step returned
        f(step(x, a, b), b) → step(x, a, b)
        # x̂ itself is the target: it is f of x̂ that the student must agree with
        f(x, a) → f(x, b)
        # the student is asked at x̂ as well, and the teacher's step leaves no trace: ask it at x,
        # level a
        .mean(1) → .sum(1)  # the sum over a sample's values stands where their mean belongs
        .square() → .abs()  # the difference is not squared
        return → return 0.5 *  # a ½ too much: the mean of the squares, nothing else
        .square().mean(1) → .norm(dim=1)  # this is the norm, not the mean of the squares
    """,
)


def guidance(rng: np.random.Generator) -> dict:
    both = {name: rng.normal(size=(ROWS, 2)) for name in ("eps_cond", "eps_null")}
    return path(rng) | both | {"omega": rng.uniform(1, 8)}


def _stops(q: Exact, case: Case, outputs: list, calls: float) -> Verdict:
    """As usual, but a step from the last place may leave the list of levels, which is nan."""
    left = [bool(np.isnan(value).all()) for value in outputs]
    if any(left[:-1]):
        return wrong(
            "i + k lies inside the list of levels here, but the answer left it: the step goes "
            "from levels[i] to levels[i + k], the noise first"
        )
    inside = replace(case, values=case.values[:-1])
    said = exactly(q, inside, outputs[:-1], calls)
    if said.share < 1 or not left[-1] and apart(outputs, case.values) < q.tolerance:
        return said
    return wrong(
        "right inside the grid. Two steps before its end a skip of 5 must stop at the last "
        "level, levels[-1]",
        0.5,
    )


STEP = Exact(
    "Q13.3",
    guidance,
    returns="x̂",
    hint="one DDIM step, α_b x₀ + σ_b ε, with x₀ and ε both of the guided ε",
    verdict=_stops,
    mistakes="""
        levels[i], levels[min(i + k, len(levels) - 1)] → levels[i + k], levels[i]
        # the step runs the wrong way: x is at levels[i], the noisier end
        min(i + k, len(levels) - 1) → max(i - k, 0)
        # the step goes towards the noise: levels[0] is the noisiest, so it ends at levels[i + k]
        / a.alpha →  # x₀ is not divided by α of the start: x₀ = (x − σ ε)/α
        (1 + omega) * eps_cond - omega * eps_null → omega * eps_cond + (1 - omega) * eps_null
        # this is guidance_scale, not ω: ε^ω = (1 + ω) ε(x, c) − ω ε(x, ∅)
        (1 + omega) * eps_cond - omega * eps_null → (1 + omega) * eps_null - omega * eps_cond
        # c and ∅ are swapped: guidance leads away from ε(x, ∅)
        eps_cond - → eps_cond +  # the weights 1 + ω and ω must have opposite signs
        (1 + omega) * eps_cond - omega * eps_null → eps_cond  # there is no guidance in it
        b.sigma * eps → b.sigma * eps_cond
        # x₀ is guided, the noise is not: both faces belong to the guided ε
        a.sigma * eps → a.sigma * eps_cond
        # the noise is guided, x₀ is not: both faces belong to the guided ε
        i + k → i + 1  # this is one step of the grid: skip k of them, to levels[i + k]
        i + k → i + k - 1  # the step ends one level too early: at levels[i + k]
        min(i + k, len(levels) - 1) → -1
        # the step goes to the end of the grid: to levels[i + k], if the grid reaches so far
        b.alpha * x0 + b.sigma * eps → x0
        # this is x₀, the data prediction: noise it again, to the level where the step ends
    """,
)


def _where(case: Case, values: list, truths: list) -> str:
    fails = [
        f"place {i}, {m} phase{'s' * (m > 1)}"
        for (i, m), value, truth in zip(PHASES, values, truths)
        if distance(value, truth) > 1e-9
    ]
    return f"wrong at {'; '.join(fails[:3])}{' …' * (len(fails) > 3)}"


JUMP = Exact(
    "Q13.4",
    lambda rng: path(rng) | {"eps": rng.normal(size=(ROWS, 2))},
    returns="x at the edge",
    off=_where,
    hint="write down by hand the edges of 12 steps and 4 phases: places 3, 6, 9 and 12",
    mistakes="""
        e > i → e >= i
        # an edge is the end of the phase above it, too: a start that is an edge itself jumps to
        # the *next* one
        min(e for e in edges if e > i) → n
        # this jumps to the clean end, whatever the phase: only with one phase is that right
        min(e for e in edges if e > i) → max([0] + [e for e in edges if e <= i])
        # this jumps to the noisy end of the phase, away from the data
        s.alpha * x0 + s.sigma * eps → x0
        # this is x₀, the data prediction: at the edge there is noise, α_s x₀ + σ_s ε
        n - m * n // phases for m in range(phases) → k * n // phases for k in range(1, phases + 1)
        # edges are counted from the noisy end. Where the phases do not divide the steps, ⌊mN/M⌋
        # must be counted from the clean one
        m * n // phases → round(m * n / phases)
        # the edges are rounded: ⌊mN/M⌋ steps above the clean end is rounded down
        min(e for e in edges if e > i) → i + 1
        # this is a single step of the grid: jump to the phase's edge
    """,
)


def sampling(rng: np.random.Generator) -> Case:
    inputs, model = problems.problem(rng)
    inputs["lams"] = np.cumsum([-2.5, *rng.uniform(0.5, 1.5, 3)])
    inputs["noise"] = rng.normal(size=(3, *inputs["x"].shape))
    return Case(inputs, problems.network_of(model))


SAMPLE = Exact(
    "Q13.5",
    sampling,
    returns="the samples",
    hint="at each level: x₀ from one call, then α x₀ + σ z at the next one; after the last, x₀ "
    "itself",
    mistakes="""
        return model(x, levels[-1]).x0 → a = levels[-1]
            return a.alpha * model(x, a).x0 + a.sigma * noise[-1]
        # noise is added after the last call, too: the last x₀ is the sample
        b.alpha * model(x, a).x0 + b.sigma * z → model(x, a).mix(b.alpha, b.sigma)
        # this is DDIM: it keeps the noise that the network sees. Consistency sampling replaces it
        # by new noise
        b.alpha * →  # x₀ is not scaled by α of the next level
        b.sigma → a.sigma  # the noise has the size of the level that was left: σ of the next one
        b.alpha → a.alpha
        b.sigma → a.sigma
        # everything is put back to the level that was left: α and σ are those of the next one
        * z → * noise[0]  # every level gets the same noise: the k-th gets noise[k]
        x = b.alpha * model(x, a).x0 → x0 = model(x, a).x0
                x = b.alpha * x0
        return model(x, levels[-1]).x0 → return x0
        # one call too few: the last level is asked as well, and its x₀ is the sample
        return model(x, levels[-1]).x0 → return x
        # this is x noised to the last level: ask the network there, and return that x₀
        return model(x, levels[0]).x0
        # this is one call: the result must be noised again and asked about again
        (x, a) → (x, levels[0])
        levels[-1] → levels[0]
        # the network is asked at the first level each time: it must be told the level that x is
        # at
        b.sigma * z → z  # the noise is not multiplied by σ
        b.alpha * model(x, a).x0 + b.sigma * z → b.alpha * x + b.sigma * z
        # x is noised further, not x₀: jump to x₀ first
    """,
)

QUESTIONS = [BOUNDARY, LOSS, STEP, JUMP, SAMPLE]
