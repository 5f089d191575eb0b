"""Plausible wrong answers to assignment 01, computed so that a judge can recognise them:
{explanation: what it returns}.
"""

import numpy as np


def _parts(x, weights, means, stds):
    """log w_k N(x; μ_k, S_k² I) (B, K), and (μ_k − x)/S_k² (B, K, d)."""
    pull = (means - x[:, None]) / stds[:, None] ** 2
    square = ((means - x[:, None]) ** 2).sum(2) / stds**2
    return np.log(weights) - 0.5 * square - x.shape[1] * np.log(stds), pull


def _average(log_joint, what):
    """Σ_k r_k what_k with the responsibilities r = softmax(log_joint)."""
    r = np.exp(log_joint - log_joint.max(1, keepdims=True))
    return np.einsum("bk,bkd->bd", r / r.sum(1, keepdims=True), what)


def _over_points(log_joint, pull):
    """The responsibilities normalised along the batch."""
    r = np.exp(log_joint - log_joint.max(0))
    return np.einsum("bk,bkd->bd", r / r.sum(0), pull)


def of_score(x, weights, means, stds) -> dict[str, np.ndarray]:
    joint, pull = _parts(x, weights, means, stds)
    d, norm = x.shape[1], (2 * np.pi) ** (-x.shape[1] / 2)
    exponent = joint - np.log(weights) + d * np.log(stds)
    hard = np.eye(len(weights))[joint.argmax(1)]
    with np.errstate(over="ignore", under="ignore"):
        density = np.einsum("bk,bkd->bd", np.exp(joint) * norm, pull)
    return {
        "the sign is wrong: each mode pulls x towards its mean, by (μ_k − x)/S_k²": -_average(
            joint, pull
        ),
        "each mode's slope is divided by S_k instead of S_k²": _average(
            joint, pull * stds[:, None]
        ),
        "each mode's slope is not divided by S_k²": _average(joint, pull * stds[:, None] ** 2),
        "the modes are averaged with their weights w_k. At x they count by their share of "
        "p(x), w_k N_k(x)/p(x)": np.einsum("k,bkd->bd", weights, pull),
        "the responsibilities lack the weights w_k": _average(joint - np.log(weights), pull),
        "the responsibilities lack the Gaussians' normaliser: with unequal S_k it does not "
        "cancel, a factor S_k^(−d)": _average(joint + d * np.log(stds), pull),
        "the Gaussians' normaliser has S_k^(−1): in d dimensions it is S_k^(−d)": _average(
            joint + (d - 1) * np.log(stds), pull
        ),
        "only the likeliest mode pulls: between modes all of them do, each by its "
        "responsibility": np.einsum("bk,bkd->bd", hard, pull),
        "this is ∇p, not ∇ log p: divide by p(x)": density,
        "stds is taken for the variances: they are its squares, S_k²": _average(
            *_parts(x, weights, means, np.sqrt(stds))
        ),
        "the ½ in the exponent of the Gaussians is missing": _average(joint + exponent, pull),
        "the softmax runs over the points: it must run over the modes, the other "
        "dimension": _over_points(joint, pull),
    }


def of_denoise(x, sigma, weights, means, stds) -> dict[str, np.ndarray]:
    wide = np.sqrt(stds**2 + sigma**2)

    def score(spread):
        return _average(*_parts(x, weights, means, spread))

    joint, _ = _parts(x, weights, means, wide)
    return {
        "the score is that of p, not of p_σ: noise widens every mode to the variance S_k² + σ²": x
        + sigma**2 * score(stds),
        "standard deviations are added: variances add, S_k² + σ²": x
        + sigma**2 * score(stds + sigma),
        "S_k² + σ² is the variance of a mode: where a standard deviation is wanted, take its "
        "root": x + sigma**2 * score(wide**2),
        "stds is taken for the variances: they are its squares, S_k²": x
        + sigma**2 * score(np.sqrt(stds + sigma**2)),
        "the score is multiplied by σ instead of σ²": x + sigma * score(wide),
        "Tweedie's formula has a plus: the score points back to the data": x
        - sigma**2 * score(wide),
        "the posterior mean within a mode is not μ_k: it lies between μ_k and x": _average(
            joint, np.broadcast_to(means, (len(x), *means.shape))
        ),
        "this is the score of p_σ: Tweedie's formula makes the posterior mean of it": score(wide),
        "this is E[z|x], the noise: subtract σ times it from x": -sigma * score(wide),
    }


def of_implicit(s, jacobian) -> dict[str, np.ndarray]:
    """s (B, d) and its Jacobian (B, d, d)."""
    square, trace = (s**2).sum(1), np.einsum("bii->b", jacobian)
    return {
        "the trace has the wrong sign: the loss then has a minimum at −∇ log p": 0.5 * square
        - trace,
        "the ½ in front of ‖s‖² is missing: the minimum is then at half the score": square
        + trace,
        "the ½ belongs to ‖s‖² alone": 0.5 * square + 0.5 * trace,
        "all entries of the Jacobian are summed: the gradient of s.sum() mixes outputs, take "
        "that of each s_i and of it the entry i": 0.5 * square + jacobian.sum((1, 2)),
        "‖s‖ is not squared": 0.5 * np.sqrt(square) + trace,
        "the average over the coordinates stands where their sum belongs": (0.5 * square + trace)
        / s.shape[1],
        "the trace is missing": 0.5 * square,
    }


def of_training(gradient, of_square=None) -> dict[str, np.ndarray]:
    """A loss's gradient in the weights, if autograd does not see part of it. of_square: the
    gradient of ½‖s‖² alone, beside a trace.
    """
    found = {
        "Autograd sees nothing of them: no torch.no_grad(), and no .detach(), .item() or .data "
        "of what score returns": np.zeros_like(gradient)
    }
    if of_square is None:
        return found
    return found | {
        "Autograd does not see the trace: torch.autograd.grad(…, create_graph=True), and no "
        ".detach() or .item() of what it returns": of_square,
        "Autograd does not see ½‖s‖²: no .detach(), .item() or .data of s": gradient - of_square,
    }


def of_dsm(score, x0, z, sigma) -> dict[str, np.ndarray]:
    x = x0 + sigma * z
    s = score(x)

    def half(v):
        return 0.5 * (v**2).sum(1)

    return {
        "the target has the wrong sign: noise z moved x away from the data, the score −z/σ "
        "points back": half(s - z / sigma),
        "the target is −z/σ: the division by σ is missing": half(s + z),
        "z is divided by σ²: x − x₀ is σz, so (x₀ − x)/σ² is −z/σ": half(s + z / sigma**2),
        "the score is asked at x₀: it must see the noisy x₀ + σz": half(score(x0) + z / sigma),
        "z is added without its σ": half(score(x0 + z) + z / sigma),
        "the ½ is missing": 2 * half(s + z / sigma),
        "this has the weight σ² of diffusion models, Vincent's loss has none": sigma**2
        * half(s + z / sigma),
        "the average over the coordinates stands where their sum belongs": half(s + z / sigma)
        / x.shape[1],
        "the norm is not squared": 0.5 * np.sqrt(2 * half(s + z / sigma)),
    }


def of_langevin(score, x, step, noise) -> dict[str, np.ndarray]:
    first = score(x)

    def chain(drift, spread, at=lambda x, z: score(x), pick=lambda k: k, noise=noise):
        y = x
        for k in range(len(noise)):
            z = noise[pick(k)]
            y = y + drift * at(y, z) + spread * z
        return y

    right = np.sqrt(2 * step)
    return {
        "the noise has the factor √η, it should be √(2η): drift η belongs to the variance "
        "2η": chain(step, np.sqrt(step)),
        "the noise has the factor 2η, the variance: take its root": chain(step, 2 * step),
        "the noise has the factor η: its standard deviation is √(2η)": chain(step, step),
        "the drift has the factor η/2: that belongs to noise √η": chain(step / 2, right),
        "this is NCSN's convention, drift η/2 and noise √η: here they are η and √(2η)": chain(
            step / 2, np.sqrt(step)
        ),
        "the noise has the factor √2·η: the root belongs to η as well, √(2η)": chain(
            step, np.sqrt(2) * step
        ),
        "this is a single step: is the return inside the loop?": chain(
            step, right, noise=noise[:1]
        ),
        "the noise of the last step is left out": chain(
            step, right, noise=np.concatenate([noise[:-1], 0 * noise[-1:]])
        ),
        "the sign of the drift is wrong: it walks downhill": chain(-step, right),
        "the score is asked once, at the start: ask anew at each step": chain(
            step, right, at=lambda x, z: first
        ),
        "every step uses the same noise: step k has its own, noise[k]": chain(
            step, right, pick=lambda k: 0
        ),
        "the noise is missing: this is gradient ascent": chain(step, 0.0),
        "the noise is added before the score is asked: ask at x, then add both": chain(
            step, right, at=lambda x, z: score(x + right * z)
        ),
    }
