"""Plausible wrong answers to assignment 04, computed so that a judge can recognise them:
{explanation: what it returns}.
"""

import numpy as np
import torch


def of_sde(alpha, sigma, d_alpha, d_sigma) -> dict[str, dict[str, np.ndarray]]:
    f = d_alpha / alpha
    g2 = 2 * sigma * (d_sigma - f * sigma)
    drifts = {
        "this is α̇: divide by α, the drift is f·x": d_alpha,
        "the sign is wrong: noising shrinks the mean, f = α̇/α": -f,
        "this is −2f, the β of the variance-preserving SDE: there f = −½β": -2 * f,
        "this is σ̇/σ: the mean is carried by α": d_sigma / sigma,
    }
    noises = {
        "this is dσ²/dt alone: part of it is the drift's work, 2fσ²": 2 * sigma * d_sigma,
        "the drift's share of dσ²/dt has the wrong sign: g² = dσ²/dt − 2fσ²": 2
        * sigma
        * (d_sigma + f * sigma),
        "half of it: dσ²/dt is 2σσ̇": g2 / 2,
        "this is (dσ/dt)² − 2fσ²: the slope of σ² is 2σσ̇": d_sigma**2 - 2 * f * sigma**2,
        "this is −2f, the β of the variance-preserving SDE: the other schedules have another "
        "g²": -2 * f,
        "this is −2σλ̇: a variance has σ²": g2 / sigma,
        "this is −2σ²λ: its slope λ̇ belongs there": -2 * sigma**2 * np.log(alpha / sigma),
        "this is −2λ̇: multiply by σ²": g2 / sigma**2,
        "this is g, the question asks for g²": np.sqrt(g2),
        "the drift's share counts twice in a variance: 2fσ²": 2 * sigma * d_sigma - f * sigma**2,
        "the sign is wrong: λ falls, so −2σ²λ̇ is positive": -g2,
    }
    return {"f": drifts, "g²": noises}


def of_drift(x, f, g2, s, eta) -> dict[str, np.ndarray]:
    right = f * x - 0.5 * (1 + eta**2) * g2 * s
    return {
        "the score has the wrong sign. With t running from 1 to 0, dt is negative: a minus in "
        "front of the score climbs towards the data": f * x + 0.5 * (1 + eta**2) * g2 * s,
        "this is the drift for a time that grows while you sample. Here dx/dt is asked, and dt "
        "is negative": -right,
        "this is the forward drift: without the score nothing knows the data": f * x,
        "this is the ODE's drift: the noise ηg needs a further ½η²g²s": f * x - 0.5 * g2 * s,
        "this is the drift of η = 1": f * x - g2 * s,
        "the ½ is missing: for η = 0 the factor must be ½": f * x - (1 + eta**2) * g2 * s,
        "1 − η² stands where 1 + η² belongs: more noise needs more of the score": f * x
        - 0.5 * (1 - eta**2) * g2 * s,
        "the square belongs to η alone: ½(1 + η²), not ½(1 + η)²": f * x
        - 0.5 * (1 + eta) ** 2 * g2 * s,
        "the ODE's ½g²s is missing: η²g²s is right at η = 1 only": f * x - eta**2 * g2 * s,
        "g2 is g² already": f * x - 0.5 * (1 + eta**2) * g2**2 * s,
        "f stands where f·x belongs": f - 0.5 * (1 + eta**2) * g2 * s,
        "η enters as its square: the variance of the noise is η²g²": f * x
        - 0.5 * (1 + eta) * g2 * s,
        "the factor is ½(1 + η²), not ½η²: at η = 0 the ODE still needs the score": f * x
        - 0.5 * eta**2 * g2 * s,
        "g stands where g² belongs": f * x - 0.5 * (1 + eta**2) * g2**0.5 * s,
        "the linear part has the wrong sign: f·x is the same as in the forward SDE": -f * x
        - 0.5 * (1 + eta**2) * g2 * s,
    }


def _walk(
    score,
    schedule,
    inputs,
    sign=1.0,
    scale=lambda eta, g2, h: eta * (g2 * h) ** 0.5,
    at=lambda a, b: a,
    last=True,
    early=False,
    pull=lambda eta: 0.5 * (1 + eta**2),
    length=lambda a, b: a - b,
    asked_at=None,
):
    """The walk with its sign of time, its noise, the time of its coefficients or its last
    noise replaced.
    """
    x, times, eta, noise = (
        torch.tensor(inputs["x"]),
        inputs["times"].tolist(),
        float(inputs["eta"]),
        torch.tensor(inputs["noise"]),
    )
    for k, (a, b) in enumerate(zip(times, times[1:])):
        t, z = at(a, b), noise[k] if last or k < len(noise) - 1 else 0 * noise[k]
        f, g2, h = schedule.drift(t), schedule.diffusion(t), length(a, b)
        kick = scale(eta, g2, h) * z
        asked = x + kick if early else x
        x = (
            x
            - sign * h * (f * asked - pull(eta) * g2 * score(asked, (asked_at or at)(a, b)))
            + kick
        )
    return x.numpy()


def of_walk(score, schedule, inputs) -> dict[str, np.ndarray]:
    def walk(**changed):
        return _walk(score, schedule, inputs, **changed)

    short = {**inputs, "times": inputs["times"][:-1], "noise": inputs["noise"][:-1]}
    even = (inputs["times"][0] - inputs["times"][-1]) / len(inputs["noise"])
    only = {**inputs, "times": inputs["times"][:2], "noise": inputs["noise"][:1]}
    return {
        "the drift has the wrong sign: t falls, t_b − t_a is negative": walk(sign=-1.0),
        "the noise lacks η": walk(scale=lambda eta, g2, h: (g2 * h) ** 0.5),
        "the noise has η² instead of η": walk(scale=lambda eta, g2, h: eta**2 * (g2 * h) ** 0.5),
        "the noise grows with the length of the step: with its square root it should": walk(
            scale=lambda eta, g2, h: eta * g2**0.5 * h
        ),
        "the noise has g² instead of g": walk(scale=lambda eta, g2, h: eta * g2 * h**0.5),
        "the noise is missing": walk(scale=lambda eta, g2, h: 0.0),
        "drift and g² are taken at the end of the step: Euler–Maruyama takes them at its "
        "start": walk(at=lambda a, b: b),
        "the noise of the last step is left out: here all of them are asked for": walk(
            last=False
        ),
        "the noise is added before the score is asked: the score belongs to the x at the start "
        "of the step": walk(early=True),
        "the drift is the ODE's, the noise is the SDE's: with noise ηg the score's factor is "
        "½(1 + η²)g²": walk(pull=lambda eta: 0.5),
        "the drift is that of η = 1, the noise has your η": walk(pull=lambda eta: 1.0),
        "the drift's ½ is missing: the score's factor is ½(1 + η²)g²": walk(
            pull=lambda eta: 1 + eta**2
        ),
        "η enters the drift as its square: ½(1 + η²)g²": walk(pull=lambda eta: 0.5 * (1 + eta)),
        "the score has the wrong sign: with dt < 0, a minus climbs towards the data": walk(
            pull=lambda eta: -0.5 * (1 + eta**2)
        ),
        "all steps are taken as equally long: the length of a step is t_a − t_b": walk(
            length=lambda a, b: even
        ),
        "the score is asked at t_b: its time is that of its x, t_a": walk(
            asked_at=lambda a, b: b
        ),
        "the last step is left out: n noises are n steps": _walk(score, schedule, short),
        "this is x after one step: the return stands inside the loop": _walk(
            score, schedule, only
        ),
    }


def of_move(x, u, a, b) -> dict[str, dict[str, np.ndarray]]:
    det = a.alpha * a.d_sigma - a.sigma * a.d_alpha
    x0, eps = (a.d_sigma * x - a.sigma * u) / det, (a.alpha * u - a.d_alpha * x) / det

    def kappa_rate(s):
        return s.d_sigma / s.alpha - s.sigma * s.d_alpha / s.alpha**2

    places = {
        "x is not the same on both schedules: y = x/α is": x,
        "the ratio is upside down: x_b/α_b = x_a/α_a": x * a.alpha / b.alpha,
        "this is y, without a schedule: multiply by α_b": x / a.alpha,
        "this is x₀, the data prediction: noise it again to level b": x0,
    }
    speeds = {
        "the velocity is not the same: the clocks differ": u,
        "the scale is right, but not the clock: b passes the same κ at another speed": u
        * b.alpha
        / a.alpha,
        "this is dy/dt on b, without α: u_b = α̇_b x₀ + σ̇_b ε": kappa_rate(b) * eps,
        "only the part with ε goes with the clock: α̇_b·y + α_b·κ̇_b·ε, not all of u": u
        * (b.alpha * kappa_rate(b))
        / (a.alpha * kappa_rate(a)),
        "this is v = αε − σx₀, which knows no time: u_b = α̇_b x₀ + σ̇_b ε": b.alpha * eps
        - b.sigma * x0,
        "the linear part is missing: α_b·dy/dt and α̇_b·y": (
            b.d_sigma - b.sigma * b.d_alpha / b.alpha
        )
        * eps,
        "σ̇ and α̇ are exchanged: u_b = α̇_b x₀ + σ̇_b ε": b.d_sigma * x0 + b.d_alpha * eps,
        "this is ε − x₀, the velocity on the straight schedule only": eps - x0,
        "this is x_b, not its velocity": b.alpha * x0 + b.sigma * eps,
    }
    if np.allclose(
        speeds["this is ε − x₀, the velocity on the straight schedule only"],
        b.d_alpha * x0 + b.d_sigma * eps,
    ):
        # b is that schedule
        del speeds["this is ε − x₀, the velocity on the straight schedule only"]
    return {"x_b": places, "u_b": speeds}


def of_likelihood(model, x, times, log_prior) -> dict[str, np.ndarray]:
    """The parts of the right answer, by Heun's rule, put together in wrong ways."""

    def rate(x, t):
        x = x.detach().requires_grad_()
        u = model(x, model.schedule.at(t)).velocity
        rows = torch.stack(
            [
                torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0]
                for i in range(x.shape[1])
            ],
            1,
        )
        # the trace, and all entries
        return u.detach(), torch.stack([rows.diagonal(dim1=1, dim2=2).sum(1), rows.sum((1, 2))])

    here, change = x, torch.zeros(2, len(x), dtype=x.dtype)
    for t, s in zip(times.tolist(), times[1:].tolist()):
        (u, trace), dt = rate(here, t), s - t
        u_s, trace_s = rate(here + dt * u, s)
        here, change = here + dt * (u + u_s) / 2, change + dt * (trace + trace_s) / 2
    prior, (trace, entries) = log_prior(here), change
    found = {
        "the integral of the divergence has the wrong sign: a flow that contracts towards the "
        "noise makes the density there larger": prior - trace,
        "the integral of the divergence is missing": prior,
        "the prior is taken at x itself: follow the ODE to the last time first": log_prior(x)
        + trace,
        "the divergence is the sum of the Jacobian's diagonal, not of all its entries (grad of "
        "u.sum() gives those)": prior + entries,
        "the divergence is averaged over the coordinates instead of summed": prior
        + trace / x.shape[1],
        "this is the integral alone: add the log density at its end": trace,
        "this is the density: its logarithm is asked for": (prior + trace).exp(),
    }
    return {why: value.numpy() for why, value in found.items()}
