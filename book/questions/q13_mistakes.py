"""Plausible wrong answers to assignment 13, so that a judge can recognise them: {explanation:
the answer, or what it returns}.

Under "" stands the right one, where it is needed beside them.
"""

import numpy as np


def scalings(kappa, low, sigma_d) -> dict[str, np.ndarray]:
    beyond = kappa - low
    return {
        "c_skip": sigma_d**2 / (beyond**2 + sigma_d**2),
        "c_out": sigma_d * beyond / np.sqrt(kappa**2 + sigma_d**2),
    }


def of_boundary(kappa, low, sigma_d) -> dict[str, dict[str, np.ndarray]]:
    beyond, far, near = kappa - low, kappa**2 + sigma_d**2, (kappa - low) ** 2 + sigma_d**2
    skips = {
        "κ stands where κ − κ_min belongs: it must be 1 at κ_min, not at 0": sigma_d**2 / far,
        "the two values are in the wrong order: c_skip comes first": sigma_d
        * beyond
        / np.sqrt(far),
        "σ_d is not squared": sigma_d / (beyond**2 + sigma_d),
        "the root is too much: it is σ_d²/((κ − κ_min)² + σ_d²)": sigma_d / np.sqrt(near),
        "this is 1 − c_skip: it must be 1 at κ_min": beyond**2 / near,
    }
    outs = {
        "κ stands where κ − κ_min belongs, in front of the root: it must be 0 at κ_min": sigma_d
        * kappa
        / np.sqrt(far),
        "under the root stands κ, not κ − κ_min: that part is EDM's, whose network sees x/√(κ² "
        "+ σ_d²)": sigma_d * beyond / np.sqrt(near),
        "the factor σ_d is missing. (LCM's released code leaves it out, this is the "
        "paper's)": beyond / np.sqrt(far),
        "the factor σ_d is missing, and under the root stands κ, not κ − κ_min": beyond
        / np.sqrt(near),
        "the root is missing": sigma_d * beyond / far,
        "the two values are in the wrong order: c_skip comes first": sigma_d**2 / near,
        "1 − c_skip is not c_out: the network's output has unit variance, and is scaled to "
        "what is missing": 1 - sigma_d**2 / near,
        "this is the square root of 1 − c_skip²: the network's output is scaled by σ_d(κ − "
        "κ_min)/√(κ² + σ_d²)": np.sqrt(1 - (sigma_d**2 / near) ** 2),
    }
    return {"c_skip": skips, "c_out": outs}


def _loss(
    student=lambda f, x, a, b: f(x, a),
    target=lambda f, there, x, a, b: f(there, b).detach(),
    reduce=lambda d: (d**2).mean(1),
):
    """The consistency loss with one of its parts replaced."""
    return lambda f, step, x, a, b: reduce(
        student(f, x, a, b) - target(f, step(x, a, b), x, a, b)
    )


def _held(f, x, a, b):
    return f(x, a).detach()


def _passing(f, there, x, a, b):
    return f(there, b)


LOSSES = {
    "": _loss(),
    "the gradient also flows through the target. Stop it: .detach() of f at the cleaner level, "
    "or torch.no_grad() around it": _loss(target=_passing),
    "the stop-gradient is on the wrong side: it is the target, f at the cleaner level, that "
    "must be constant": _loss(_held, _passing),
    "no gradient reaches the weights at all: only the target's side is constant": _loss(_held),
    "the target is told that x̂ is at level a: it is at level b": _loss(
        target=lambda f, there, x, a, b: f(there, a).detach()
    ),
    "the target is asked at the old x: ask it at what the teacher's step returned": _loss(
        target=lambda f, there, x, a, b: f(x, b).detach()
    ),
    "x̂ itself is the target: it is f of x̂ that the student must agree with": _loss(
        target=lambda f, there, x, a, b: there
    ),
    "the student is asked at x̂ as well, and the teacher's step leaves no trace: ask it at x, "
    "level a": _loss(lambda f, x, a, b: f(x, b)),
    "the sum over a sample's values stands where their mean belongs": _loss(
        reduce=lambda d: (d**2).sum(1)
    ),
    "the difference is not squared": _loss(reduce=lambda d: d.abs().mean(1)),
    "a ½ too much: the mean of the squares, nothing else": _loss(
        reduce=lambda d: 0.5 * (d**2).mean(1)
    ),
    "this is the norm, not the mean of the squares": _loss(reduce=lambda d: d.norm(dim=1)),
}


def _skip(
    guide=lambda c, e, w: (1 + w) * c - w * e,
    end=lambda i, k, n: min(i + k, n),
    data=None,
    noise=None,
):
    """One guided DDIM step with one of its parts replaced. guide: (ε(x, c), ε(x, ∅), ω) ↦ ε^ω;
    data, noise: (c, e, ε^ω) ↦ the ε of x₀, of the noise.
    """

    def step(x, cond, null, levels, i, k, omega):
        a, b, both = levels[i], levels[end(i, k, len(levels) - 1)], guide(cond, null, omega)
        clean, back = (both if part is None else part(cond, null, both) for part in (data, noise))
        return b.alpha / a.alpha * (x - a.sigma * clean) + b.sigma * back

    return step


skip = _skip()


def _undivided(x, cond, null, levels, i, k, omega):
    a, b, eps = levels[i], levels[min(i + k, len(levels) - 1)], (1 + omega) * cond - omega * null
    return b.alpha * (x - a.sigma * eps) + b.sigma * eps


def _noisier(x, cond, null, levels, i, k, omega):
    a, b, eps = levels[i], levels[max(i - k, 0)], (1 + omega) * cond - omega * null
    return b.alpha / a.alpha * (x - a.sigma * eps) + b.sigma * eps


def _to_data(x, cond, null, levels, i, k, omega):
    return (x - levels[i].sigma * ((1 + omega) * cond - omega * null)) / levels[i].alpha


def _backwards(x, cond, null, levels, i, k, omega):
    a, b, eps = levels[i + k], levels[i], (1 + omega) * cond - omega * null
    return b.alpha / a.alpha * (x - a.sigma * eps) + b.sigma * eps


SKIPS = {
    "the step runs the wrong way: x is at levels[i], the noisier end": _backwards,
    "the step goes towards the noise: levels[0] is the noisiest, so it ends at levels[i + "
    "k]": _noisier,
    "x₀ is not divided by α of the start: x₀ = (x − σ ε)/α": _undivided,
    "this is guidance_scale, not ω: ε^ω = (1 + ω) ε(x, c) − ω ε(x, ∅)": _skip(
        lambda c, e, w: w * c + (1 - w) * e
    ),
    "c and ∅ are swapped: guidance leads away from ε(x, ∅)": _skip(
        lambda c, e, w: (1 + w) * e - w * c
    ),
    "the weights 1 + ω and ω must have opposite signs": _skip(
        lambda c, e, w: (1 + w) * c + w * e
    ),
    "there is no guidance in it": _skip(lambda c, e, w: c),
    "x₀ is guided, the noise is not: both faces belong to the guided ε": _skip(
        noise=lambda c, e, both: c
    ),
    "the noise is guided, x₀ is not: both faces belong to the guided ε": _skip(
        data=lambda c, e, both: c
    ),
    "this is one step of the grid: skip k of them, to levels[i + k]": _skip(
        end=lambda i, k, n: i + 1
    ),
    "the step ends one level too early: at levels[i + k]": _skip(
        end=lambda i, k, n: min(i + k - 1, n)
    ),
    "the step goes to the end of the grid: to levels[i + k], if the grid reaches so far": _skip(
        end=lambda i, k, n: n
    ),
    "this is x₀, the data prediction: noise it again, to the level where the step ends": _to_data,
}


def _jump(edge=None, keep_noise=True):
    """The jump to a phase's edge; edge: (place, steps, phases) ↦ the place of the edge."""

    def jump(x, eps, levels, i, phases):
        n = len(levels) - 1
        a, s = levels[i], levels[(edge or _below)(i, n, phases)]
        x0 = (x - a.sigma * eps) / a.alpha
        return s.alpha * x0 + s.sigma * eps if keep_noise else x0

    return jump


def _edges(n: int, phases: int, whole=lambda share: int(share // 1)) -> list[int]:
    """Their places, the noisiest first."""
    return [n - whole(m * n / phases) for m in reversed(range(phases))]


def _below(i, n, phases):
    return min(e for e in _edges(n, phases) if e > i)


phase_jump = _jump()
JUMPS = {
    "an edge is the end of the phase above it, too: a start that is an edge itself jumps to "
    "the *next* one": _jump(lambda i, n, m: min(e for e in _edges(n, m) if e >= i)),
    "this jumps to the clean end, whatever the phase: only with one phase is that right": _jump(
        lambda i, n, m: n
    ),
    "this jumps to the noisy end of the phase, away from the data": _jump(
        lambda i, n, m: max([0] + [e for e in _edges(n, m) if e <= i])
    ),
    "this is x₀, the data prediction: at the edge there is noise, α_s x₀ + σ_s ε": _jump(
        keep_noise=False
    ),
    "edges are counted from the noisy end. Where the phases do not divide the steps, ⌊mN/M⌋ "
    "must be counted from the clean one": _jump(
        lambda i, n, m: min(e for e in [k * n // m for k in range(1, m + 1)] if e > i)
    ),
    "the edges are rounded: ⌊mN/M⌋ steps above the clean end is rounded down": _jump(
        lambda i, n, m: min(e for e in _edges(n, m, lambda share: round(share)) if e > i)
    ),
    "this is a single step of the grid: jump to the phase's edge": _jump(lambda i, n, m: i + 1),
}


def _sampler(
    again=lambda p, x, a, b, z: b.alpha * p.x0 + b.sigma * z,
    last=lambda p, a, z: p.x0,
    start=lambda first, x: x,
    pick=lambda k: k,
):
    """Consistency sampling with one of its parts replaced."""

    def run(model, x, levels, noise):
        first, p = x, model(x, levels[0])
        for k, (a, b) in enumerate(zip(levels, levels[1:])):
            x = again(p, start(first, x), a, b, noise[pick(k)])
            p = model(x, b)
        return last(p, levels[-1], noise[-1])

    return run


def _one_call(model, x, levels, noise):
    return model(x, levels[0]).x0


def _one_too_few(model, x, levels, noise):
    for a, b, z in zip(levels[:-1], levels[1:-1], noise):
        x = b.alpha * model(x, a).x0 + b.sigma * z
    return model(x, levels[-2]).x0


def _unasked(model, x, levels, noise):
    for a, b, z in zip(levels, levels[1:], noise):
        x = b.alpha * model(x, a).x0 + b.sigma * z
    return x


def _first_level(model, x, levels, noise):
    for b, z in zip(levels[1:], noise):
        x = b.alpha * model(x, levels[0]).x0 + b.sigma * z
    return model(x, levels[0]).x0


SAMPLERS = {
    "": _sampler(),
    "noise is added after the last call, too: the last x₀ is the sample": _sampler(
        last=lambda p, a, z: a.alpha * p.x0 + a.sigma * z
    ),
    "this is DDIM: it keeps the noise that the network sees. Consistency sampling replaces it "
    "by new noise": _sampler(lambda p, x, a, b, z: p.mix(b.alpha, b.sigma)),
    "x₀ is not scaled by α of the next level": _sampler(lambda p, x, a, b, z: p.x0 + b.sigma * z),
    "the noise has the size of the level that was left: σ of the next one": _sampler(
        lambda p, x, a, b, z: b.alpha * p.x0 + a.sigma * z
    ),
    "everything is put back to the level that was left: α and σ are those of the next "
    "one": _sampler(lambda p, x, a, b, z: a.alpha * p.x0 + a.sigma * z),
    "every level gets the same noise: the k-th gets noise[k]": _sampler(pick=lambda k: 0),
    "one call too few: the last level is asked as well, and its x₀ is the sample": _one_too_few,
    "this is x noised to the last level: ask the network there, and return that x₀": _unasked,
    "this is one call: the result must be noised again and asked about again": _one_call,
    "the network is asked at the first level each time: it must be told the level that x is "
    "at": _first_level,
    "the noise is not multiplied by σ": _sampler(lambda p, x, a, b, z: b.alpha * p.x0 + z),
    "x is noised further, not x₀: jump to x₀ first": _sampler(
        lambda p, x, a, b, z: b.alpha * x + b.sigma * z
    ),
}
