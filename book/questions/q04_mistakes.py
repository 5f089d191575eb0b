"""Plausible wrong answers to assignment 04, computed so that a judge can recognise them: {explanation: what it returns}."""

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
        "the drift's share of dσ²/dt has the wrong sign: g² = dσ²/dt − 2fσ²": 2 * sigma * (d_sigma + f * sigma),
        "half of it: dσ²/dt is 2σσ̇": g2 / 2,
        "this is −2λ̇: multiply by σ²": g2 / sigma**2,
        "this is g, the question asks for g²": np.sqrt(g2),
        "the drift's share counts twice in a variance: 2fσ²": 2 * sigma * d_sigma - f * sigma**2,
        "the sign is wrong: λ falls, so −2σ²λ̇ is positive": -g2,
    }
    return {"f": drifts, "g²": noises}


def of_drift(x, f, g2, s, eta) -> dict[str, np.ndarray]:
    right = f * x - 0.5 * (1 + eta**2) * g2 * s
    return {
        "the score has the wrong sign. With t running from 1 to 0, dt is negative: a minus in front of the score climbs towards the data": f * x + 0.5 * (1 + eta**2) * g2 * s,
        "this is the drift for a time that grows while you sample. Here dx/dt is asked, and dt is negative": -right,
        "this is the forward drift: without the score nothing knows the data": f * x,
        "this is the ODE's drift: the noise ηg needs a further ½η²g²s": f * x - 0.5 * g2 * s,
        "this is the drift of η = 1": f * x - g2 * s,
        "the ½ is missing: for η = 0 the factor must be ½": f * x - (1 + eta**2) * g2 * s,
        "η enters as its square: the variance of the noise is η²g²": f * x - 0.5 * (1 + eta) * g2 * s,
        "the factor is ½(1 + η²), not ½η²: at η = 0 the ODE still needs the score": f * x - 0.5 * eta**2 * g2 * s,
        "g stands where g² belongs": f * x - 0.5 * (1 + eta**2) * g2**0.5 * s,
        "the linear part has the wrong sign: f·x is the same as in the forward SDE": -f * x - 0.5 * (1 + eta**2) * g2 * s,
    }


def _walk(score, schedule, inputs, sign=1.0, scale=lambda eta, g2, h: eta * (g2 * h) ** 0.5, at=lambda a, b: a, last=True, early=False, pull=lambda eta: 0.5 * (1 + eta**2)):
    """The walk with its sign of time, its noise, the time of its coefficients or its last noise replaced."""
    x, times, eta, noise = torch.tensor(inputs["x"]), inputs["times"].tolist(), float(inputs["eta"]), torch.tensor(inputs["noise"])
    for k, (a, b) in enumerate(zip(times, times[1:])):
        t, z = at(a, b), noise[k] if last or k < len(noise) - 1 else 0 * noise[k]
        f, g2, h = schedule.drift(t), schedule.diffusion(t), a - b
        kick = scale(eta, g2, h) * z
        asked = x + kick if early else x
        x = x - sign * h * (f * asked - pull(eta) * g2 * score(asked, t)) + kick
    return x.numpy()


def of_walk(score, schedule, inputs) -> dict[str, np.ndarray]:
    def walk(**changed):
        return _walk(score, schedule, inputs, **changed)

    only = {**inputs, "times": inputs["times"][:2], "noise": inputs["noise"][:1]}
    return {
        "the drift has the wrong sign: t falls, t_b − t_a is negative": walk(sign=-1.0),
        "the noise lacks η": walk(scale=lambda eta, g2, h: (g2 * h) ** 0.5),
        "the noise has η² instead of η": walk(scale=lambda eta, g2, h: eta**2 * (g2 * h) ** 0.5),
        "the noise grows with the length of the step: with its square root it should": walk(scale=lambda eta, g2, h: eta * g2**0.5 * h),
        "the noise has g² instead of g": walk(scale=lambda eta, g2, h: eta * g2 * h**0.5),
        "the noise is missing": walk(scale=lambda eta, g2, h: 0.0),
        "drift and g² are taken at the end of the step: Euler–Maruyama takes them at its start": walk(at=lambda a, b: b),
        "the noise of the last step is left out: here all of them are asked for": walk(last=False),
        "the noise is added before the score is asked: the score belongs to the x at the start of the step": walk(early=True),
        "the drift is the ODE's, the noise is the SDE's: with noise ηg the score's factor is ½(1 + η²)g²": walk(pull=lambda eta: 0.5),
        "this is x after one step: the return stands inside the loop": _walk(score, schedule, only),
    }


def of_move(x, u, a, b) -> dict[str, dict[str, np.ndarray]]:
    det = a.alpha * a.d_sigma - a.sigma * a.d_alpha
    x0, eps = (a.d_sigma * x - a.sigma * u) / det, (a.alpha * u - a.d_alpha * x) / det
    places = {
        "x is not the same on both schedules: y = x/α is": x,
        "the ratio is upside down: x_b/α_b = x_a/α_a": x * a.alpha / b.alpha,
        "this is y, without a schedule: multiply by α_b": x / a.alpha,
        "this is x₀, the data prediction: noise it again to level b": x0,
    }
    speeds = {
        "the velocity is not the same: the clocks differ": u,
        "the scale is right, but not the clock: b passes the same κ at another speed": u * b.alpha / a.alpha,
        "this is dy/dt on b, without α: u_b = α̇_b x₀ + σ̇_b ε": (b.d_sigma / b.alpha - b.sigma * b.d_alpha / b.alpha**2) * eps,
        "the linear part is missing: α_b·dy/dt and α̇_b·y": (b.d_sigma - b.sigma * b.d_alpha / b.alpha) * eps,
        "σ̇ and α̇ are exchanged: u_b = α̇_b x₀ + σ̇_b ε": b.d_sigma * x0 + b.d_alpha * eps,
        "this is ε − x₀, the velocity on the straight schedule only": eps - x0,
        "this is x_b, not its velocity": b.alpha * x0 + b.sigma * eps,
    }
    if np.allclose(speeds["this is ε − x₀, the velocity on the straight schedule only"], b.d_alpha * x0 + b.d_sigma * eps):
        del speeds["this is ε − x₀, the velocity on the straight schedule only"]  # b is that schedule
    return {"x_b": places, "u_b": speeds}


def of_likelihood(model, x, times, log_prior) -> dict[str, np.ndarray]:
    """The parts of the right answer, by Heun's rule, put together in wrong ways."""

    def rate(x, t):
        x = x.detach().requires_grad_()
        u = model(x, model.schedule.at(t)).velocity
        rows = torch.stack([torch.autograd.grad(u[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])], 1)
        return u.detach(), torch.stack([rows.diagonal(dim1=1, dim2=2).sum(1), rows.sum((1, 2))])  # the trace, and all entries

    here, change = x, torch.zeros(2, len(x), dtype=x.dtype)
    for t, s in zip(times.tolist(), times[1:].tolist()):
        (u, trace), dt = rate(here, t), s - t
        u_s, trace_s = rate(here + dt * u, s)
        here, change = here + dt * (u + u_s) / 2, change + dt * (trace + trace_s) / 2
    prior, (trace, entries) = log_prior(here), change
    found = {
        "the integral of the divergence has the wrong sign: a flow that contracts towards the noise makes the density there larger": prior - trace,
        "the integral of the divergence is missing": prior,
        "the prior is taken at x itself: follow the ODE to the last time first": log_prior(x) + trace,
        "the divergence is the sum of the Jacobian's diagonal, not of all its entries (grad of u.sum() gives those)": prior + entries,
        "the divergence is averaged over the coordinates instead of summed": prior + trace / x.shape[1],
        "this is the integral alone: add the log density at its end": trace,
    }
    return {why: value.numpy() for why, value in found.items()}
