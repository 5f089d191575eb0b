"""The questions of assignment 06: conventions, faces, Gaussians under guidance, moved masses,
and the guided ε of a mixture.
"""

import math

import numpy as np
import torch
from dlib import Denoiser, Mixture, guided, vp

from book.questions import Case, Question, Verdict, q06_mistakes
from book.questions.judging import faults
from book.questions.problems import arrays, tensors

PRELUDE = """from book import check  # first: it also tells torch not to spin
import math

import torch"""
ROWS = 24
KINDS = ("omega", "scale", "extra")
FACES = ("eps", "v", "score")


def _floats(inputs: dict, *names: str) -> list[float]:
    return [float(inputs[name]) for name in names]


def _level(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A variance preserving level in the middle of the schedule."""
    angle = rng.uniform(0.4, 1.1)
    return {"alpha": np.array(math.cos(angle)), "sigma": np.array(math.sin(angle))}


# Q06.1: three conventions


def draw_kinds(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    shape = (ROWS, int(rng.integers(2, 5)))
    inputs = {
        "told": rng.normal(size=shape),
        "empty": rng.normal(size=shape),
        "w": np.array(rng.uniform(2.0, 7.0)),
    }
    told, empty, w = inputs["told"], inputs["empty"], float(inputs["w"])
    values = [told + omega * (told - empty) for omega in (w, w - 1, w)]
    return Case(inputs, {"values": values, "mistakes": q06_mistakes.of_kinds(told, empty, w)})


def run_kinds(answer, inputs, network) -> list:
    given = *tensors(inputs, "told", "empty"), float(inputs["w"])
    return arrays(*(answer(*given, kind) for kind in KINDS))


def judge_kinds(case: Case, outputs: list, calls: float) -> Verdict:
    hints = ("(1+ω)·told − ω·empty", "empty + g·(told − empty)", "told + w′·(told − empty)")
    return faults(case, outputs, tuple(f'kind="{kind}"' for kind in KINDS), hints)


# Q06.2: guide whatever the network predicts


def draw_faces(seed: int) -> Case:
    """Truth: the library's guided denoiser, whose networks hand out these outputs."""
    rng = np.random.default_rng(seed)
    shape = (ROWS, int(rng.integers(2, 5)))
    inputs = {
        "told": rng.normal(size=shape),
        "empty": rng.normal(size=shape),
        "x": rng.normal(size=shape),
        "omega": np.array(rng.uniform(1.0, 7.0)),
    } | _level(rng)
    told, empty, x = tensors(inputs, "told", "empty", "x")
    omega, alpha, sigma = _floats(inputs, "omega", "alpha", "sigma")
    level, asked = (
        vp().at(vp().at_lam(math.log(alpha / sigma)).t),
        torch.zeros(ROWS, dtype=torch.int64),
    )
    values = [
        guided(Denoiser(lambda x, t, cond: torch.cat([told, empty]), vp(), face), omega, -1)(
            x, level, asked
        ).x0.numpy()
        for face in FACES
    ]
    return Case(
        inputs,
        {
            "values": values,
            "mistakes": q06_mistakes.of_faces(
                *(inputs[name] for name in ("told", "empty", "x")), omega, alpha, sigma
            ),
        },
    )


def run_faces(answer, inputs, network) -> list:
    given = *tensors(inputs, "told", "empty", "x"), *_floats(inputs, "alpha", "sigma")
    return arrays(*(answer(*given, face, float(inputs["omega"])) for face in FACES))


def judge_faces(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "x₀ = (x − σε)/α",
        "x = αx₀ + σε and v = αε − σx₀ are two equations for x₀",
        "the score is −ε/σ",
    )
    return faults(
        case, outputs, tuple(f'x₀ for predicts="{face}"' for face in FACES), hints, 1e-7
    )


# Q06.3: Gaussians, solved


def _ends(
    v_c: float, v_null: float, m_c: float, m_null: float, omega: float, low: float, high: float
) -> tuple[float, float]:
    """(mean shift, variance) of the guided flow's end by Gauss–Legendre quadrature of its
    linear ODE, not by the closed forms.
    """
    node, weight = np.polynomial.legendre.leggauss(200)

    def integral(f, a: float, b: float) -> float:
        return float((b - a) / 2 * (weight * f((b - a) / 2 * node + (a + b) / 2)).sum())

    # in s = log κ: d log y / ds of the unequal flow, less 1, from κ = e^{-9} to e^{9}, where it
    # is κ resp. constant
    rate = lambda s: (
        (1 + omega) * np.exp(2 * s) / (v_c + np.exp(2 * s))
        - omega * np.exp(2 * s) / (v_null + np.exp(2 * s))
    )
    log_width = 9.0 - sum(integral(rate, a, a + 1) for a in np.arange(-9.0, 9.0))
    push = lambda s: (
        omega * (m_c - m_null) * np.exp(2 * s) / (v_c + np.exp(2 * s)) ** 1.5 * math.sqrt(v_c)
    )
    edges = np.linspace(math.log(low), math.log(high), 9)
    return sum(integral(push, a, b) for a, b in zip(edges, edges[1:])), math.exp(2 * log_width)


def draw_gaussians(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    m_c, m_null, v_c = rng.normal(), rng.normal(), rng.uniform(0.1, 0.6)
    inputs = {
        name: np.array(value)
        for name, value in {
            "m_c": m_c,
            "m_null": m_null,
            "v_c": v_c,
            "v_null": v_c * rng.uniform(1.5, 3.0),
            "omega": rng.uniform(0.5, 4.0),
            "low": rng.uniform(0.05, 0.3),
            "high": rng.uniform(0.8, 3.0),
        }.items()
    }
    given = _floats(inputs, "m_c", "m_null", "v_c", "v_null", "omega", "low", "high")
    m_c, m_null, v_c, v_null, omega, low, high = given
    shift, variance = _ends(v_c, v_null, m_c, m_null, omega, low, high)
    tilt = 1 / ((1 + omega) / v_c - omega / v_null)
    return Case(
        inputs,
        {
            "values": [np.array(m_c + shift), np.array(variance), np.array(tilt)],
            "mistakes": q06_mistakes.of_gaussians(*given),
        },
    )


def run_gaussians(answer, inputs, network) -> list:
    returned = answer(*_floats(inputs, "m_c", "m_null", "v_c", "v_null", "omega", "low", "high"))
    return arrays(None) if returned is None else arrays(*returned)


def judge_gaussians(case: Case, outputs: list, calls: float) -> Verdict:
    hints = (
        "only the levels between low and high push, each by its cos θ; v_null has no part in it",
        "integrate d log y along the flow with equal means",
        "the tilt is a Gaussian: collect the x² in its exponent",
    )
    return faults(
        case, outputs, ("the mean", "the flow's variance", "the tilt's variance"), hints, 1e-6
    )


# Q06.4: masses


def draw_masses(seed: int) -> Case:
    """Far modes of one shape that two distributions share; the truth by summing the tilted
    density on a grid.
    """
    rng = np.random.default_rng(seed)
    k = int(rng.integers(3, 6))
    inputs = {
        "of_class": rng.dirichlet(np.full(k, 3.0)) * 0.9 + 0.1 / k,
        "of_all": rng.dirichlet(np.full(k, 3.0)) * 0.9 + 0.1 / k,
        "omega": np.array(rng.uniform(0.5, 4.0)),
    }
    of_class, of_all, omega = inputs["of_class"], inputs["of_all"], float(inputs["omega"])
    x, centre = np.arange(-50.0, 100.0 * k, 0.05), 100.0 * np.arange(k)
    log_each = -0.5 * (x[:, None] - centre) ** 2
    log_p, log_q = (
        np.logaddexp.reduce(log_each + np.log(weights), axis=1) for weights in (of_class, of_all)
    )
    density = np.exp((1 + omega) * log_p - omega * log_q)
    mass = np.array([density[np.abs(x - c) < 50].sum() for c in centre])
    return Case(
        inputs,
        {
            "values": [mass / mass.sum()],
            "mistakes": [q06_mistakes.of_masses(of_class, of_all, omega)],
        },
    )


def run_masses(answer, inputs, network) -> list:
    return arrays(answer(*tensors(inputs, "of_class", "of_all"), float(inputs["omega"])))


def judge_masses(case: Case, outputs: list, calls: float) -> Verdict:
    return faults(
        case,
        outputs,
        ("the vector of masses",),
        ("near mode k, p(x|c)/p(x) is the ratio of its two weights",),
        1e-7,
    )


# Q06.5: the guided ε of a mixture


def draw_mixture(seed: int) -> Case:
    """Truth: autograd of the tilted log-density."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(4, 7))
    labels = np.concatenate([[0, 0, 1], rng.integers(0, 3, k - 3)]).astype(np.float64)
    inputs = {
        "x": rng.normal(size=(ROWS, 2)),
        "weights": rng.dirichlet(np.full(k, 3.0)),
        "means": rng.normal(size=(k, 2)),
        "stds": rng.uniform(0.3, 0.8, k),
        "labels": labels,
        "omega": np.array(rng.uniform(1.0, 7.0)),
    } | _level(rng)
    x, weights, means, stds = tensors(inputs, "x", "weights", "means", "stds")
    omega, alpha, sigma = _floats(inputs, "omega", "alpha", "sigma")
    mixture = Mixture(weights, means, stds, torch.tensor(labels).long())
    level, x = vp().at(vp().at_lam(math.log(alpha / sigma)).t), x.requires_grad_()
    (slope,) = torch.autograd.grad(
        mixture.log_guidance_tilt(x, level, torch.zeros(ROWS, dtype=torch.int64), omega).sum(), x
    )
    mistakes = q06_mistakes.of_mixture(
        inputs["x"].copy(),
        inputs["weights"],
        inputs["means"],
        inputs["stds"],
        labels == 0,
        omega,
        alpha,
        sigma,
    )
    return Case(inputs, {"values": [(-sigma * slope).numpy()], "mistakes": [mistakes]})


def run_mixture(answer, inputs, network) -> list:
    given = tensors(inputs, "x", "weights", "means", "stds")
    return arrays(
        answer(
            *given,
            torch.tensor(inputs["labels"]).long(),
            0,
            *_floats(inputs, "omega", "alpha", "sigma"),
        )
    )


def judge_mixture(case: Case, outputs: list, calls: float) -> Verdict:
    return faults(
        case,
        outputs,
        ("the guided ε",),
        ("it is −σ times the gradient of (1+ω) log p_t(x|c) − ω log p_t(x)",),
        1e-7,
    )


QUESTIONS = [
    Question("Q06.1", "guide", 3, draw_kinds, run_kinds, judge_kinds),
    Question("Q06.2", "guided_x0", 4, draw_faces, run_faces, judge_faces),
    Question("Q06.3", "guided_gaussian", 5, draw_gaussians, run_gaussians, judge_gaussians),
    Question("Q06.4", "tilted_masses", 3, draw_masses, run_masses, judge_masses),
    Question("Q06.5", "guided_eps", 5, draw_mixture, run_mixture, judge_mixture),
]
