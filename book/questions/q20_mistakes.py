"""Plausible wrong answers to assignment 20, computed so that a judge can recognise them:
{explanation: what it returns}.
"""

import math

import numpy as np
import torch

NOISE = "the variances are those of clean samples: after the noise they are v = α²·variance + σ²"
HALF = "a factor ½ is left: the square's derivative brings a 2"
TWICE = "a factor 2 too much: the ½ of a Gaussian's exponent takes it"
TAU = "τ is not squared: v_q = α²τ² + σ²"
BY_SQUARE = "this is the derivative by s², not by s: multiply by 2s"
NO_S = "the factor s is missing: ∂v_p/∂s = 2α²s"


def of_gaussians(m, s, mu, tau, alpha, sigma) -> list[dict[str, np.ndarray]]:
    """One dictionary for each of ∂KL/∂m, ∂KL/∂s and ∂CE/∂s."""
    v_p, v_q, of_tau = (alpha**2 * variance + sigma**2 for variance in (s**2, tau**2, tau))
    of_m = {
        "the sign is wrong: descent must move m towards μ": -(alpha**2) * (m - mu) / v_q,
        NOISE: (m - mu) / tau**2,
        "the data's mean is taken for 0, as in the chapter's formula: here it is μ": alpha**2
        * m
        / v_q,
        "the data's mean is μ, and after the noise it is αμ: both means shrink by α": alpha
        * (alpha * m - mu)
        / v_q,
        "one factor α is missing: the means of p_t and q_t are αm and αμ, and the chain rule "
        "brings a second α": alpha * (m - mu) / v_q,
        "the factor α² is missing: the means of p_t and q_t are αm and αμ": (m - mu) / v_q,
        "v_p stands where v_q belongs: KL(p‖q) measures distances in widths of q": alpha**2
        * (m - mu)
        / v_p,
        HALF: 0.5 * alpha**2 * (m - mu) / v_q,
        TWICE: 2 * alpha**2 * (m - mu) / v_q,
        TAU: alpha**2 * (m - mu) / of_tau,
    }
    of_kl = {
        "the sign is wrong: a student narrower than the data must widen, so ∂KL/∂s < 0 for s < "
        "τ": alpha**2 * s * (1 / v_p - 1 / v_q),
        NOISE: s / tau**2 - 1 / s,
        "this is ∂CE/∂s: the entropy of p_t is missing, and with it all that keeps the student "
        "wide": alpha**2 * s / v_q,
        "the factor α² is missing: v_p = α²s² + σ²": s * (1 / v_q - 1 / v_p),
        "one factor α is missing: ∂v_p/∂s = 2α²s": alpha * s * (1 / v_q - 1 / v_p),
        HALF: 0.5 * alpha**2 * s * (1 / v_q - 1 / v_p),
        TWICE: 2 * alpha**2 * s * (1 / v_q - 1 / v_p),
        TAU: alpha**2 * s * (1 / of_tau - 1 / v_p),
        BY_SQUARE: 0.5 * alpha**2 * (1 / v_q - 1 / v_p),
        NO_S: alpha**2 * (1 / v_q - 1 / v_p),
        "this is KL(q‖p): the student's samples are averaged over, so it is KL(p‖q)": alpha**2
        * s
        * (1 / v_p - (v_q + alpha**2 * (m - mu) ** 2) / v_p**2),
    }
    of_ce = {
        "the sign is wrong: −E log q_t grows with the student's width": -(alpha**2) * s / v_q,
        NOISE: s / tau**2,
        "the factor α² is missing: v_p = α²s² + σ²": s / v_q,
        "one factor α is missing: ∂v_p/∂s = 2α²s": alpha * s / v_q,
        "v_p stands where v_q belongs": alpha**2 * s / v_p,
        "this is ∂KL/∂s: cross-entropy has no entropy of p_t": alpha**2 * s * (1 / v_q - 1 / v_p),
        HALF: 0.5 * alpha**2 * s / v_q,
        TWICE: 2 * alpha**2 * s / v_q,
        TAU: alpha**2 * s / of_tau,
        BY_SQUARE: 0.5 * alpha**2 / v_q,
        NO_S: alpha**2 / v_q,
    }
    return [of_m, of_kl, of_ce]


def of_quadrature(inputs: dict, real) -> dict[str, np.ndarray]:
    x, jacobian, nodes, mass, alpha, sigma = (
        inputs[name] for name in ("x", "jacobian", "nodes", "mass", "alpha", "sigma")
    )
    x_t, count = alpha * x[:, None] + sigma * nodes, len(x)
    each = (x_t[:, :, None] - alpha * x) / sigma
    fake, noise, eps_q = _mean(each, each**2 / 2), np.broadcast_to(nodes, x_t.shape), real(x_t)
    nearest = np.take_along_axis(each, np.abs(each).argmin(2)[:, :, None], 2)[:, :, 0]
    clean = (x_t[:, :, None] - x) / sigma

    def total(fake, factor=alpha / sigma, real=eps_q, mass=mass):
        return factor * ((real - fake) @ mass) @ jacobian / count

    return {
        "the sign is wrong: G is real − fake, and descent subtracts it": -total(fake),
        "this is SDS, the derivative of the cross-entropy: where the fake's ε_p belongs stands "
        "the noise that was added, or nothing, which has the same mean. "
        "(So have shares that sum to 1 over the wrong axis: at each x_t they must do so over "
        "the atoms that it may come from)": total(noise),
        "the factor α/σ is missing": total(fake, 1.0),
        "the factor is σ², SwiftBrush's weight: that of KL is α/σ": total(fake, sigma**2),
        "the factor is σ/α: that of KL is α/σ": total(fake, sigma / alpha),
        "the factor is α/σ², with one σ too many: the scores differ by (ε_q − ε_p)/σ": total(
            fake, alpha / sigma**2
        ),
        "the factor is 1/σ: α is missing, which comes from ∂x_t/∂x₀": total(fake, 1 / sigma),
        "the factor is α: the division by σ is missing, score = −ε/σ": total(fake, alpha),
        "the atoms count alike in the fake: at x_t each counts by its share of p_t(x_t)": total(
            each.mean(2)
        ),
        "only the nearest atom speaks in the fake: all do, each by its share of p_t(x_t)": total(
            nearest
        ),
        "the ½ in the exponent of the fake's shares is missing": total(_mean(each, each**2)),
        "σ is not squared in the exponent of the fake's shares": total(
            _mean(each, each**2 * sigma / 2)
        ),
        "σ is missing in the exponent of the fake's shares: it is −(x_t − α x_i)²/2σ²": total(
            _mean(each, each**2 * sigma**2 / 2)
        ),
        "the fake's atoms sit at x_k: after the noise they sit at α x_k": total(
            _mean(clean, clean**2 / 2)
        ),
        "the fake is its score: ε = −σ · score": total(-fake / sigma),
        "the fake is not divided by σ: the noise of atom i is (x_t − α x_i)/σ": total(
            sigma * fake
        ),
        "the fake is its x̂₀, the mean of the atoms: ε_p = (x_t − α x̂₀)/σ": total(
            (x_t - sigma * fake) / alpha
        ),
        "the atoms' gradients are summed: z has K equally likely values, take the mean": count
        * total(fake),
        "the nodes are averaged alike: each has its mass": total(
            fake, mass=np.full(len(nodes), 1 / len(nodes))
        ),
        "the nodes are averaged on top of their masses, which sum to 1 already": total(fake)
        / len(nodes),
        "the teacher is asked at x₀: it must see the noisy x_t": total(
            fake, real=real(np.broadcast_to(x[:, None], x_t.shape).copy())
        ),
    }


def _mean(values, exponent) -> np.ndarray:
    """The mean over the last axis with weights e^(−exponent)."""
    share = np.exp(-exponent)
    return (share * values).sum(2) / share.sum(2)


def of_step(inputs: dict, networks) -> dict[str, np.ndarray]:
    """The student's gradient under the usual slips; `networks(inputs)` gives fresh networks
    and their leaves.
    """
    z, eps = (torch.tensor(inputs[name]) for name in ("z", "eps"))
    alpha, sigma = float(inputs["alpha"]), float(inputs["sigma"])

    def gradient(loss) -> np.ndarray:
        nets, leaves = networks(inputs)
        x = nets["student"](z)
        x_t = alpha * x + sigma * eps
        G = alpha / sigma * (nets["real"](x_t) - nets["fake"](x_t))
        loss(x, x_t, G, nets).sum(1).mean().backward()
        grad = leaves["student"].grad
        return np.zeros(leaves["student"].shape) if grad is None else grad.numpy()

    right = gradient(lambda x, x_t, G, nets: x * G.detach())
    return {
        "there is none: autograd sees no path from the loss to the student. Make x = "
        "student(z) outside of no_grad, and do not detach it; "
        "and ½(x − (x − G))² without a stop on its target no longer contains x at "
        "all": np.zeros_like(right),
        "the sign is wrong: the gradient of ½‖x − sg(x − G)‖² by x is +G, with G = real − "
        "fake": -right,
        "the target x − G is not stopped, and autograd differentiates G: the loss is then "
        "½‖G‖², another objective": gradient(lambda x, x_t, G, nets: 0.5 * G**2),
        "G is not a constant: autograd runs through both networks' inputs. Detach G": gradient(
            lambda x, x_t, G, nets: x * G
        ),
        "only x is stopped, in x − G: G needs a stop as well": gradient(
            lambda x, x_t, G, nets: 0.5 * (x - (x.detach() - G)) ** 2
        ),
        "this is SDS: the noise stands where the fake score belongs": gradient(
            lambda x, x_t, G, nets: x * (alpha / sigma * (nets["real"](x_t) - eps)).detach()
        ),
        "the factor α/σ is missing": right * sigma / alpha,
        "the factor is σ²: here it is asked for α/σ": right * sigma**3 / alpha,
        "the factor is σ/α: it is α/σ": right * (sigma / alpha) ** 2,
        "G is injected at x_t, not at x: that brings a second α": alpha * right,
        "the mean runs over the values of a sample as well: sum over them, and average over "
        "samples only": right / eps.shape[1],
        "a mean over the values of a sample as well, and without ½: mse_loss of x and sg(x − "
        "G) has the gradient 2G/(B·d)": 2 * right / eps.shape[1],
        "the samples are summed: take their mean": right * len(z),
        "the samples are summed, and without ½: take half of their mean": 2 * right * len(z),
        "the ½ is missing: (x − sg(x − G))² has the gradient 2G": 2 * right,
        "the networks are asked at x: they must see the noisy x_t": gradient(
            lambda x, x_t, G, nets: (
                x * (alpha / sigma * (nets["real"](x) - nets["fake"](x))).detach()
            )
        ),
    }


def of_answer(output, z, alpha, sigma) -> list[dict[str, np.ndarray]]:
    of_eps, of_v = (z - sigma * output) / alpha, alpha * z - sigma * output
    return [
        {
            "the division by α is missing": z - sigma * output,
            "the sign is wrong: the noise is taken away": (z + sigma * output) / alpha,
            "this is the formula for v": of_v,
            "the noise is subtracted without its σ": (z - output) / alpha,
            "the network's output is returned as it is: it is ε": output,
        },
        {
            "this is the formula for ε": of_eps,
            "the sign is wrong: the two equations combine so that ε cancels, αz − σv = (α² + "
            "σ²)x₀": alpha * z + sigma * output,
            "this is σz + αv = ε, not x₀: α and σ are interchanged": sigma * z + alpha * output,
            "this is the answer of a flow model, z − v": z - output,
            "ε is taken for z: in v = αε − σx₀ the ε is the noise in z = αx₀ + σε": (
                alpha * z - output
            )
            / sigma,
            "α and σ are interchanged": sigma * z - alpha * output,
            "the network's output is returned as it is: it is v": output,
        },
    ]


def of_adapter(x, weight, bias, A, B, a) -> list[dict[str, np.ndarray]]:
    rank, plain = len(A), x @ weight.T + bias
    update, product = x @ A.T @ B.T, B @ A
    factors = {
        "the scale a/r is missing": 1.0,
        "the scale is a: it is a/r, so that the rank can change without a new learning rate": a,
        "the scale is 1/r: a is missing": 1 / rank,
        "the scale is r/a: it is a/r": rank / a,
        "the adapter is subtracted": -a / rank,
        "the scale is a over the number of inputs: r is A's first axis": a / A.shape[1],
        "the scale is a over the number of outputs: r is B's second axis": a / len(B),
        "the scale is a/√r, rank-stabilised LoRA's: here it is a/r": a / math.sqrt(rank),
    }
    return [
        {why: plain + f * update for why, f in factors.items()}
        | {
            "the adapter is missing": plain,
            "the adapter stands alone: the layer's own output is missing": a / rank * update,
            "the bias is missing": plain - bias + a / rank * update,
            "the bias is added twice": plain + bias + a / rank * update,
        },
        {why: weight + f * product for why, f in factors.items()}
        | {
            "the adapter is missing": weight,
            "the adapter stands alone: add the layer's weight": a / rank * product,
        },
    ]
