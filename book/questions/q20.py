"""The questions of assignment 20: gradients of divergences, closed, by quadrature and
injected; a student's answer; an adapter.
"""

import math

import numpy as np
import torch
from dlib import Batch, Denoiser, Draw, Mixture, exact, merged, twin, vp, vsd
from dlib.losses.score_distillation import kl

from book.questions import Case, Question, Verdict, q20_mistakes
from book.questions.judging import RIGHT, distance, faults, malformed, recognise, wrong
from book.questions.problems import array, arrays, tensors

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
ROWS = 24


def _floats(inputs: dict, *names: str) -> list[float]:
    return [float(inputs[name]) for name in names]


def _level(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A variance preserving level in the middle of the schedule."""
    angle = rng.uniform(0.5, 1.0)
    return {"alpha": np.array(math.cos(angle)), "sigma": np.array(math.sin(angle))}


# Q20.1: closed forms


def draw_gaussians(seed: int) -> Case:
    """Widths on both sides of the data's; the truth by autograd of the divergence itself."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 6))
    inputs = {
        "m": rng.normal(size=d),
        "s": rng.uniform(0.3, 1.7, d),
        "mu": rng.normal(size=d),
        "tau": rng.uniform(0.5, 1.5, d),
    } | _level(rng)
    m, s, mu, tau = tensors(inputs, "m", "s", "mu", "tau")
    alpha, sigma = _floats(inputs, "alpha", "sigma")
    m.requires_grad_(), s.requires_grad_()
    v_p, v_q = alpha**2 * s**2 + sigma**2, alpha**2 * tau**2 + sigma**2
    cross = 0.5 * (v_q.log() + (v_p + alpha**2 * (m - mu) ** 2) / v_q).sum()
    of_m, of_ce = torch.autograd.grad(cross, (m, s), retain_graph=True)
    (of_kl,) = torch.autograd.grad(cross - 0.5 * v_p.log().sum(), s)
    mistakes = q20_mistakes.of_gaussians(
        *(inputs[name] for name in ("m", "s", "mu", "tau")), alpha, sigma
    )
    return Case(
        inputs,
        {"values": [value.numpy() for value in (of_m, of_kl, of_ce)], "mistakes": mistakes},
    )


def run_gaussians(answer, inputs, network) -> list:
    returned = answer(*tensors(inputs, "m", "s", "mu", "tau"), *_floats(inputs, "alpha", "sigma"))
    return arrays(None) if returned is None else arrays(*returned)


def judge_gaussians(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "KL's part with m is α²(m − μ)²/2v_q, with the variance v_q of q_t: differentiate it "
        "by m",
        "write KL of two Gaussians with the variances after the noise, then differentiate by s",
        "−E log q_t is ½ log v_q + (v_p + α²(m − μ)²)/2v_q: where is s?",
    )
    return faults(case, outputs, ("∂KL/∂m", "∂KL/∂s", "∂CE/∂s"), hints)


# Q20.2: against finite differences of KL


def _line(inputs: dict) -> Mixture:
    weights, means, stds = tensors(inputs, "weights", "means", "stds")
    return Mixture(weights, means[:, None], stds)


def _time(inputs: dict) -> float:
    alpha, sigma = _floats(inputs, "alpha", "sigma")
    return vp().at_lam(math.log(alpha / sigma)).t


def divergence(theta: np.ndarray, inputs: dict) -> float:
    """KL(p_t ‖ q_t) of the student Σ_i θ_i jacobian_i, a sum over a grid."""
    x = torch.from_numpy(inputs["jacobian"] @ theta)[:, None]
    level, grid = (
        vp().at(_time(inputs)),
        torch.arange(-12, 12, 0.01, dtype=torch.float64)[:, None],
    )
    log_p = Mixture(torch.full((len(x),), 1 / len(x)), x, torch.full((len(x),), 1e-7)).log_prob(
        grid, level
    )
    return 0.01 * (log_p.exp() * (log_p - _line(inputs).log_prob(grid, level))).sum().item()


def draw_quadrature(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    k, h = int(rng.integers(5, 9)), 1e-4
    z, nodes = np.linspace(-1.5, 1.5, k), np.arange(-8, 8.01, 0.1)
    mass, theta = (
        np.exp(-(nodes**2) / 2),
        rng.normal(size=4) * [0.5, 0.3, 0.3, 0.3] + [0, 0.6, 0, 0],
    )
    inputs = {
        "jacobian": np.stack([z**0, z, z**2, np.sin(2 * z)], 1),
        "nodes": nodes,
        "mass": mass / mass.sum(),
        "weights": rng.dirichlet([4.0, 4.0]),
        "means": np.array([-1.2, 1.2]) + 0.3 * rng.normal(size=2),
        "stds": rng.uniform(0.3, 0.6, 2),
    } | _level(rng)
    inputs["x"] = inputs["jacobian"] @ theta
    truth = np.array(
        [
            (divergence(theta + h * e, inputs) - divergence(theta - h * e, inputs)) / (2 * h)
            for e in np.eye(4)
        ]
    )
    real = lambda x: _real(inputs)(torch.from_numpy(x)).numpy()
    return Case(
        inputs, {"values": [truth], "mistakes": [q20_mistakes.of_quadrature(inputs, real)]}
    )


def _real(inputs: dict):
    """x_t of any shape ↦ ε of the exact teacher."""
    teacher, level = exact(_line(inputs), vp()), vp().at(_time(inputs))
    return lambda x: teacher(x.reshape(-1, 1), level).eps.reshape(x.shape)


def run_quadrature(answer, inputs, network) -> list:
    x, jacobian, nodes, mass = tensors(inputs, "x", "jacobian", "nodes", "mass")
    return arrays(
        answer(x, jacobian, _real(inputs), nodes, mass, *_floats(inputs, "alpha", "sigma"))
    )


def judge_quadrature(case: Case, outputs: list, calls: float) -> Verdict:
    hint = (
        "this is not the finite difference of KL. x_t[k, j] = α x_k + σ nodes_j; the perfect "
        "fake averages the noises (x_t − α x_i)/σ of all atoms i, "
        "each by its share of p_t(x_t)"
    )
    return faults(case, outputs, ("the gradient",), (hint,), tolerance=1e-6)


# Q20.3: one step, three networks

SHAPE, NUMBER, BACKWARD = 1, 2, 3
"""What can be wrong with a loss before its gradients are looked at."""


def _networks(inputs: dict) -> tuple[dict, dict]:
    """(the networks as functions, their weights as leaves)."""
    leaves = {
        name: torch.tensor(inputs[name], requires_grad=True)
        for name in ("student", "real", "fake")
    }
    inner, mix = tensors(inputs, "inner", "mix")
    nets = {"student": lambda z: torch.tanh(z @ inner) @ leaves["student"]}
    nets |= {
        name: (lambda x, weight=leaves[name]: torch.tanh(x @ mix) @ weight + 0.3 * x)
        for name in ("real", "fake")
    }
    return nets, leaves


def draw_step(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    d, k = int(rng.integers(3, 6)), 4
    inputs = {
        "inner": rng.normal(size=(k, 7)),
        "student": rng.normal(size=(7, d)) / 2,
        "mix": rng.normal(size=(d, d)),
        "real": rng.normal(size=(d, d)),
        "fake": rng.normal(size=(d, d)),
        "z": rng.normal(size=(ROWS, k)),
    } | _level(rng)
    draw = Draw(seed)
    inputs["eps"] = draw.copy().normal((ROWS, d), torch.float64).numpy()
    nets, leaves = _networks(inputs)
    roles = [
        Denoiser(lambda x, t, cond, net=nets[name]: net(x), vp(), "eps")
        for name in ("real", "fake")
    ]
    time = lambda draw, n: torch.full((n,), _time(inputs), dtype=torch.float64)
    vsd(
        *roles, Batch(nets["student"](torch.from_numpy(inputs["z"]))), draw, kl, time
    ).value.backward()
    return Case(
        inputs,
        {
            "value": leaves["student"].grad.numpy(),
            "mistakes": q20_mistakes.of_step(inputs, _networks),
        },
    )


def run_step(answer, inputs, network) -> list:
    nets, leaves = _networks(inputs)
    value = answer(
        nets["student"],
        nets["real"],
        nets["fake"],
        *tensors(inputs, "z", "eps"),
        *_floats(inputs, "alpha", "sigma"),
    )
    if value is None:
        return []
    early, tensor = (
        any(leaf.grad is not None for leaf in leaves.values()),
        isinstance(value, torch.Tensor),
    )
    if not early and tensor and value.numel() == 1 and value.requires_grad:
        value.sum().backward()
    grads = [
        array(leaf.grad) if leaf.grad is not None else np.zeros(leaf.shape)
        for leaf in leaves.values()
    ]
    fault = BACKWARD if early else NUMBER if not tensor else SHAPE if value.ndim else 0
    return [
        array(float(fault)),
        *grads,
        np.array(value.shape if tensor else (), dtype=np.float64),
    ]


def judge_step(case: Case, outputs: list, calls: float) -> Verdict:
    if len(outputs) == 5 and outputs[0]:
        said = {
            SHAPE: f"the loss has shape {tuple(int(n) for n in outputs[4].flat)}, wanted a "
            "scalar tensor: sum over the values of a sample, then the mean over samples",
            NUMBER: "the answer returned a plain number, wanted a scalar tensor: without its "
            "graph (.item(), float()) there is nothing to differentiate",
            BACKWARD: "the answer has called .backward() itself: return the loss, the check "
            "calls it",
        }
        return wrong(said.get(int(outputs[0]), "the answer returned no loss"))
    shapes = [case.inputs[name].shape for name in ("student", "real", "fake")]
    bad = malformed(
        outputs[:4],
        ("the loss", "the student's gradient", "the teacher's gradient", "the fake's gradient"),
        [(), *shapes],
    )
    if bad:
        return bad
    _, student, real, fake = outputs[:4]
    off = distance(student, case.truth["value"])
    leak = [name for name, grad in (("teacher", real), ("fake score", fake)) if grad.any()]
    if off < 1e-9:
        get = f"the {' and the '.join(leak)} get{'s' * (len(leak) == 1)}"
        return (
            RIGHT
            if not leak
            else wrong(
                f"the student's gradient is right, but {get} a gradient as well: make G under "
                "torch.no_grad()",
                0.6,
            )
        )
    why = (
        recognise(student, case.truth["mistakes"])
        or "with x = student(z), it must be the mean over the batch of G·∂x/∂θ, G a constant"
    )
    return wrong(f"the student's gradient is off by {off:.1e} (relative): {why}")


# Q20.4: the x₀ of a one-step student


def draw_answer(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    shape = (ROWS, int(rng.integers(2, 5)))
    inputs = {"output": rng.normal(size=shape), "z": rng.normal(size=shape)} | _level(rng)
    output, z = tensors(inputs, "output", "z")
    values = [
        Denoiser(lambda x, t, cond: output, vp(), face)(z, vp().at(_time(inputs))).x0.numpy()
        for face in ("eps", "v")
    ]
    mistakes = q20_mistakes.of_answer(
        inputs["output"], inputs["z"], *_floats(inputs, "alpha", "sigma")
    )
    return Case(inputs, {"values": values, "mistakes": mistakes})


def run_answer(answer, inputs, network) -> list:
    given = *tensors(inputs, "output", "z"), *_floats(inputs, "alpha", "sigma")
    return arrays(*(answer(*given, face) for face in ("eps", "v")))


def judge_answer(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "solve z = αx₀ + σε for x₀",
        "z = αx₀ + σε and v = αε − σx₀ are two equations for x₀ and ε",
    )
    return faults(case, outputs, ('x₀ for predicts="eps"', 'x₀ for predicts="v"'), hints)


# Q20.5: an adapter


def draw_adapter(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    rank, wide, out = int(rng.integers(2, 4)), *(int(n) for n in rng.permutation([5, 6]))
    inputs = {
        "x": rng.normal(size=(ROWS, wide)),
        "weight": rng.normal(size=(out, wide)),
        "bias": rng.normal(size=out),
        "A": rng.normal(size=(rank, wide)),
        "B": rng.normal(size=(out, rank)),
        "a": np.array(rng.uniform(8, 16)),
    }
    x, weight, bias, A, B = tensors(inputs, "x", "weight", "bias", "A", "B")
    plain = torch.nn.Linear(wide, out, dtype=torch.float64)
    with torch.no_grad():
        plain.weight.copy_(weight), plain.bias.copy_(bias)
        layer = twin(plain, rank, float(inputs["a"]))
        layer.lora_A.copy_(A), layer.lora_B.copy_(B)
        values = [layer(x).numpy(), merged(layer).weight.detach().numpy()]
    return Case(inputs, {"values": values, "mistakes": q20_mistakes.of_adapter(**inputs)})


def run_adapter(answer, inputs, network) -> list:
    returned = answer(*tensors(inputs, "x", "weight", "bias", "A", "B"), float(inputs["a"]))
    return arrays(*returned) if isinstance(returned, (tuple, list)) else arrays(returned)


def judge_adapter(case: Case, outputs: list, calls: float) -> Verdict:
    hints = ("y = x Wᵀ + bias + (a/r) x Aᵀ Bᵀ", "the merged weight is W + (a/r) B A")
    return faults(case, outputs, ("y", "the merged weight"), hints)


QUESTIONS = [
    Question("Q20.1", "gaussian_gradients", 4, draw_gaussians, run_gaussians, judge_gaussians),
    Question("Q20.2", "vsd_gradient", 6, draw_quadrature, run_quadrature, judge_quadrature),
    Question("Q20.3", "vsd_loss", 5, draw_step, run_step, judge_step),
    Question("Q20.4", "one_step", 2, draw_answer, run_answer, judge_answer),
    Question("Q20.5", "adapted", 3, draw_adapter, run_adapter, judge_adapter),
]
