"""What the calls share: a schedule, its levels and a network as an answer sees them, a walk, and
the gradient of a loss.
"""

from collections.abc import Callable

import numpy as np
import torch
from dlib import Denoiser, Mixture, NoiseSchedule, vp

from book.questions.values import array, given, stacked


def schedule_of(inputs: dict) -> NoiseSchedule:
    """The drawn schedule: the judge and the answer's process build it from its two numbers."""
    return vp(*map(float, inputs["beta"]))


def mixture_of(inputs: dict) -> Mixture:
    return Mixture(*given(inputs, "weights", "means", "stds"))


def levels_of(inputs: dict) -> list:
    """The levels of that schedule at the drawn λ."""
    return [schedule_of(inputs).at_lam(float(lam)) for lam in inputs["lams"]]


def model_of(inputs: dict, network: Callable) -> Denoiser:
    """The denoiser that an answer is handed. Its network predicts ε, wherever it really runs."""
    batch = inputs["x"].shape

    def net(x, t, cond):
        if x.shape[1:] != batch[1:] or len(x) == 0:
            raise ValueError(
                f"model: x has shape {tuple(x.shape)}, wanted {batch}: hand in the batch of "
                "points"
            )
        return torch.from_numpy(network(x.detach().double().numpy(), float(t[0]))).to(x.dtype)

    return _Keeping(net, schedule_of(inputs), "eps")


class _Keeping(Denoiser):
    """A prediction mixes x and the network's answer when it is asked for a face: this one keeps
    x as it was, also where the answer then computes in place.
    """

    def __call__(self, x, level, cond=None):
        return super().__call__(x.clone(), level, cond)


def walk(step: Callable, model: Denoiser, x, lams: np.ndarray):
    """x after a walk through the levels with these λ; `step(model, x, a, b, memory)` returns
    (x, memory). None if a step returns it.
    """
    levels, memory = [model.schedule.at_lam(float(lam)) for lam in lams], None
    for a, b in zip(levels, levels[1:]):
        returned = step(model, x, a, b, memory)
        if returned is None or returned[0] is None:
            return None
        x, memory = returned
    return x


def trained(value, weights: torch.Tensor) -> list[np.ndarray]:
    """A loss as an array, and the gradient of its sum in the weights: 0 if autograd sees none."""
    value = stacked(value)
    if value is None:
        return []
    slope = torch.zeros_like(weights)
    if isinstance(value, torch.Tensor) and value.requires_grad:
        (slope,) = torch.autograd.grad(value.sum(), weights, materialize_grads=True)
    return [array(value), array(slope)]
