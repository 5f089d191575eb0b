"""How the answers of assignment 20 are called."""

import math
from collections.abc import Callable

import numpy as np
import torch
from dlib import Mixture, NoiseLevel, exact, vp

from book.questions.values import array, arrays, each, given

FACES = ("eps", "v")
SHAPE, NUMBER, BACKWARD = 1, 2, 3
"""What can be wrong with a loss before its gradients are looked at."""


def line(inputs: dict) -> tuple[Mixture, NoiseLevel]:
    """A mixture in one dimension, and the level."""
    weights, means, stds = given(inputs, "weights", "means", "stds")
    level = vp().at_lam(math.log(inputs["alpha"] / inputs["sigma"]))
    return Mixture(weights, means[:, None], stds), level


def vsd_gradient(answer: Callable, inputs: dict, network: None) -> list:
    mixture, level = line(inputs)
    teacher = exact(mixture, vp())
    real = lambda x: teacher(x.reshape(-1, 1), level).eps.reshape(x.shape)
    x, jacobian, *others = given(inputs, "x", "jacobian", "nodes", "mass", "alpha", "sigma")
    return arrays(answer(x, jacobian, real, *others))


def vsd_loss(answer: Callable, inputs: dict, network: None) -> list:
    """What is wrong with the loss, its gradient in the weights of all networks, its shape."""
    inner, mix, *leaves = given(inputs, "inner", "mix", "student", "real", "fake")
    for leaf in leaves:
        leaf.requires_grad_()
    student = lambda z: torch.tanh(z @ inner) @ leaves[0]
    real, fake = (lambda x, w=w: torch.tanh(x @ mix) @ w + 0.3 * x for w in leaves[1:])
    value = answer(student, real, fake, *given(inputs, "z", "eps", "alpha", "sigma"))
    if value is None:
        return []
    early, tensor = any(w.grad is not None for w in leaves), isinstance(value, torch.Tensor)
    if not early and tensor and value.numel() == 1 and value.requires_grad:
        value.sum().backward()
    fault = BACKWARD if early else NUMBER if not tensor else SHAPE if value.ndim else 0
    grads = [array(torch.zeros_like(w) if w.grad is None else w.grad) for w in leaves]
    return [array(fault), *grads, np.array(value.shape if tensor else (), dtype=np.float64)]


def one_step(answer: Callable, inputs: dict, network: None) -> list:
    return each(answer(*given(inputs), face) for face in FACES)
