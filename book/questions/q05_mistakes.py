"""Plausible wrong answers to assignment 05, computed so that a judge can recognise them, and
the converters that Q05.3 tests.
"""

import math

import numpy as np

FACES = ("eps", "x0", "v", "velocity", "score")


def table(face, level):
    """(a, b) of face = a·x₀ + b·ε."""
    return {
        "eps": (0.0, 1.0),
        "x0": (1.0, 0.0),
        "v": (-level.sigma, level.alpha),
        "velocity": (level.d_alpha, level.d_sigma),
        "score": (0.0, -1 / level.sigma),
    }[face]


def face_of(face, x0, eps, level, table=table):
    a, b = table(face, level)
    return a * x0 + b * eps


def solve(face, w, x, level, table=table):
    """(x₀, ε) from x and the value w of a face."""
    a, b = table(face, level)
    det = level.alpha * b - level.sigma * a
    return (b * x - level.sigma * w) / det, (level.alpha * w - a * x) / det


def of_both(face, x0, eps, level) -> dict[str, np.ndarray]:
    """{explanation: (2, B, d)} of what a wrong converter makes of the face."""
    alpha, sigma, d_alpha, d_sigma = level
    x, w, size = alpha * x0 + sigma * eps, face_of(face, x0, eps, level), alpha**2 + sigma**2
    det = alpha * d_sigma - sigma * d_alpha
    found = {
        "eps": {
            "x₀ lacks the division by α": (x - sigma * w, w),
            "this is right where α = 1 only: x₀ = (x − σε)/α": (x - sigma / alpha * w, w),
        },
        "x0": {
            "ε lacks the division by σ": (w, x - alpha * w),
            "ε is x − x₀ over σ: the data are scaled by α": (w, (x - w) / sigma),
        },
        "v": {
            "D = α² + σ² is missing: it is 1 on variance-preserving schedules only": (
                alpha * x - sigma * w,
                sigma * x + alpha * w,
            ),
            "v has the other sign: v = αε − σx₀": (
                (alpha * x + sigma * w) / size,
                (sigma * x - alpha * w) / size,
            ),
        },
        "velocity": {
            "this is right on straight paths only (x₀ = x − σu, ε = x + αu): elsewhere u = "
            "α̇x₀ + σ̇ε": (x - sigma * w, x + alpha * w),
            "the velocity has the other sign: u = dx/dt": (
                (d_sigma * x + sigma * w) / det,
                (-alpha * w - d_alpha * x) / det,
            ),
            "the determinant has the wrong sign: it is ασ̇ − α̇σ": (-x0, -eps),
            "the determinant ασ̇ − α̇σ is missing: it is 1 on straight paths only": (
                det * x0,
                det * eps,
            ),
            "the determinant is a difference: ασ̇ − α̇σ": (
                det * x0 / (alpha * d_sigma + sigma * d_alpha),
                det * eps / (alpha * d_sigma + sigma * d_alpha),
            ),
        },
        "score": {
            "the score has the other sign: it is −ε/σ": ((x - sigma**2 * w) / alpha, sigma * w),
            "σ is missing: the score is −ε/σ, so ε = −σs": ((x + sigma * w) / alpha, -w),
            "x₀ lacks the division by α": (x + sigma**2 * w, -sigma * w),
        },
    }[face]
    return {
        why: np.stack(pair)
        for why, pair in {**found, "the two are exchanged: return (x0, eps)": (eps, x0)}.items()
    }


def of_velocity(eps_model, at_lam, x, t) -> dict[str, np.ndarray]:
    lam = math.log((1 - t) / t)

    def found(
        lam=lam,
        scale=lambda level: level.alpha / (1 - t),
        x0=lambda y, eps, level: (y - level.sigma * eps) / level.alpha,
        u=lambda eps, x0: eps - x0,
    ):
        level = at_lam(lam)
        y = scale(level) * x
        eps = eps_model(y, level)
        return u(eps, x0(y, eps, level))

    asked = {  # the network was asked in the wrong place
        "x is handed over as it is: at equal κ the point y = x/α is the same, not x": {
            "scale": lambda level: 1.0
        },
        "the ratio is upside down: the model's x is α_model/(1−t) times yours": {
            "scale": lambda level: (1 - t) / level.alpha
        },
        "x/α is handed over: multiply by the model's own α": {"scale": lambda level: 1 / (1 - t)},
        "x is multiplied by the model's α: divide it by your own as well": {
            "scale": lambda level: level.alpha
        },
        "λ has the wrong sign: it is log(α/σ) = log((1−t)/t)": {"lam": -lam},
        "λ is half the log signal-to-noise ratio, log(α/σ), not log(α²/σ²)": {"lam": 2 * lam},
        "at_lam takes λ = log((1−t)/t), not t": {"lam": t},
    }
    said = (
        {why: found(**how) for why, how in asked.items()}
        | {
            f"{why} (what you make of its ε is right)": found(
                **how, x0=lambda y, eps, level: (x - t * eps) / (1 - t)
            )
            for why, how in asked.items()
        }
        | {
            "x₀ mixes the model's point with your α and σ": found(
                x0=lambda y, eps, level: (y - t * eps) / (1 - t)
            ),
            "x₀ mixes your point with the model's α and σ": found(
                x0=lambda y, eps, level: (x - level.sigma * eps) / level.alpha
            ),
            "the sign is wrong: in this time dx/dt = ε − x₀": found(u=lambda eps, x0: x0 - eps),
            "this is ε: subtract x₀": found(u=lambda eps, x0: eps),
        }
    )
    return {why: value.numpy() for why, value in said.items()}


def by_hand(have, want, w, x, level):
    """The formulas of the notation page, one a face."""
    alpha, sigma, d_alpha, d_sigma = level
    size, det = alpha**2 + sigma**2, alpha * d_sigma - d_alpha * sigma
    eps = {
        "eps": lambda: w,
        "x0": lambda: (x - alpha * w) / sigma,
        "v": lambda: (sigma * x + alpha * w) / size,
        "velocity": lambda: (alpha * w - d_alpha * x) / det,
        "score": lambda: -sigma * w,
    }[have]()
    x0 = {"x0": lambda: w, "v": lambda: (alpha * x - sigma * w) / size}.get(
        have, lambda: (x - sigma * eps) / alpha
    )()
    return {
        "eps": eps,
        "x0": x0,
        "v": alpha * eps - sigma * x0,
        "velocity": d_alpha * x0 + d_sigma * eps,
        "score": -eps / sigma,
    }[want]


def _by(table_in, table_out=None):
    """The converter that solves with one table and answers with another, or the same."""
    return lambda have, want, w, x, level: face_of(
        want, *solve(have, w, x, level, table_in), level, table_out or table_in
    )


def _but(face, pair):
    """The table with another (a, b) for one face."""
    return lambda asked, level: pair(level) if asked == face else table(asked, level)


def _through_the_score(have, want, w, x, level):
    score = face_of("score", *solve(have, w, x, level), level)
    x0 = (x + level.sigma**2 * score) / level.alpha
    return face_of(want, x0, -level.sigma * score, level)


def _without_d(have, want, w, x, level):
    if have != "v":
        return by_hand(have, want, w, x, level)
    return face_of(
        want, level.alpha * x - level.sigma * w, level.sigma * x + level.alpha * w, level
    )


def _one_way(have, want, w, x, level):
    if (have, want) != ("v", "x0"):
        return by_hand(have, want, w, x, level)
    return (level.alpha * x + level.sigma * w) / (level.alpha**2 + level.sigma**2)


def _clean_only(have, want, w, x, level):
    right = by_hand(have, want, w, x, level)
    return right if level.alpha > level.sigma or have == want else right + 0.1 * x


def _slightly_off(have, want, w, x, level):
    right = by_hand(have, want, w, x, level)
    return right * (1.001 if want == "score" and have != "score" else 1.0)


CONVERTERS = {  # (converter, is it right?), by what it does
    "solves the two linear equations": (_by(table), True),
    "has a formula for every face": (by_hand, True),
    "goes through the score": (_through_the_score, True),
    "has the velocity's sign wrong, both ways": (
        _by(_but("velocity", lambda level: (-level.d_alpha, -level.d_sigma))),
        False,
    ),
    "has the score's sign wrong, both ways": (
        _by(_but("score", lambda level: (0.0, 1 / level.sigma))),
        False,
    ),
    "takes −ε for the score, both ways": (_by(_but("score", lambda level: (0.0, -1.0))), False),
    "takes ε − x₀ for the velocity on every schedule": (
        _by(_but("velocity", lambda level: (-1.0, 1.0))),
        False,
    ),
    "divides by no D = α² + σ²": (_without_d, False),
    "has one sign wrong, from v to x₀": (_one_way, False),
    "is right where α > σ only": (_clean_only, False),
    "scales the score by 1.001": (_slightly_off, False),
    "returns every face unchanged": (lambda have, want, w, x, level: w, False),
}


def cfm(
    net,
    x0,
    eps,
    t,
    target=lambda x0, eps: eps - x0,
    place=lambda x0, eps, t: (1 - t) * x0 + t * eps,
    reduce=lambda square: square.sum(1).mean(),
    clock=lambda t: t,
):
    """The conditional flow-matching loss, with its target, its x_t, its average or the
    network's time replaced.
    """
    said = net(place(x0, eps, t[:, None]), clock(t))
    return reduce((said - target(x0, eps)) ** 2)


def of_loss(judged) -> list[dict[str, np.ndarray]]:
    """Of the value and of the gradient. judged: loss ↦ [value, gradient]."""

    def changed(**how):
        return judged(lambda net, x0, eps, t: cfm(net, x0, eps, t, **how))

    found = {
        "the target has the wrong sign: with t = 1 at noise, dx/dt = ε − x₀": changed(
            target=lambda x0, eps: x0 - eps
        ),
        "x_t has its ends exchanged: t = 1 is noise": changed(
            place=lambda x0, eps, t: t * x0 + (1 - t) * eps
        ),
        "the target is the noise: this is an ε-loss": changed(target=lambda x0, eps: eps),
        "the squares are averaged over the coordinates too: sum them": changed(
            reduce=lambda square: square.mean()
        ),
        "the batch is summed: take its mean": changed(reduce=lambda square: square.sum()),
        "the network is asked at 1 − t: its time is t": changed(clock=lambda t: 1 - t),
        "the network is asked at x₀: ask it at x_t": changed(place=lambda x0, eps, t: x0),
        "the norm is not squared": changed(reduce=lambda square: square.sum(1).sqrt().mean()),
        "there is a ½ in front": changed(reduce=lambda square: square.sum(1).mean() / 2),
        "x_t is on the variance-preserving circle, not on the straight line": changed(
            place=lambda x0, eps, t: (1 - t**2).sqrt() * x0 + t * eps
        ),
    }
    value, slope = ({why: pair[i] for why, pair in found.items()} for i in (0, 1))
    return [
        value,
        slope
        | {
            "it is zero: the network was called without a gradient, or the loss was turned "
            "into a number": np.zeros_like(judged(cfm)[1])
        },
    ]


def walk(theirs, x, times, sign=-1.0, clock=lambda t: 1 - t, at=lambda a, b: a):
    """Euler's walk with its sign, its clock or the time of its question replaced."""
    for a, b in zip(times, times[1:]):
        x = x + (b - a) * sign * theirs(x, clock(at(a, b)))
    return x


def of_walk(theirs, x, times) -> dict[str, np.ndarray]:
    found = {
        "the sign is wrong: the network predicts x₀ − ε, which is −dx/dt in our time": walk(
            theirs, x, times, sign=1.0
        ),
        "the network is asked at t: its time is s = 1 − t": walk(
            theirs, x, times, clock=lambda t: t
        ),
        "both are forgotten: its time is s = 1 − t, and x₀ − ε is −dx/dt": walk(
            theirs, x, times, sign=1.0, clock=lambda t: t
        ),
        "the network is asked at the end of the step: Euler's rule asks at its start": walk(
            theirs, x, times, at=lambda a, b: b
        ),
        "the walk runs from data to noise: times fall, start with the first": walk(
            theirs, x, times[::-1]
        ),
        "this is x after one step: the return stands inside the loop": walk(theirs, x, times[:2]),
        "this is one step from the first time to the last: walk through all of them": walk(
            theirs, x, [times[0], times[-1]]
        ),
        "the steps are taken to be equal: use the times": walk(
            theirs, x, np.linspace(times[0], times[-1], len(times)).tolist()
        ),
    }
    return {why: value.numpy() for why, value in found.items()}
