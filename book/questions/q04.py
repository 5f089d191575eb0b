"""How the answers of assignment 04 are called."""

from collections.abc import Callable
from typing import NamedTuple

from dlib import Denoiser, exact

from book.questions.problems import mixture_of, schedule_of
from book.questions.values import arrays, given


class Level(NamedTuple):
    """What an answer knows of a schedule at one time."""

    alpha: float
    sigma: float
    d_alpha: float
    d_sigma: float


def _model(inputs: dict) -> Denoiser:
    return exact(mixture_of(inputs), schedule_of(inputs))


def reverse_drift(answer: Callable, inputs: dict, network: None) -> list:
    model, (x, t, eta) = _model(inputs), given(inputs, "x", "t", "eta")
    level, schedule = model.schedule.at(t), model.schedule
    score = lambda x: model(x, level).score
    return arrays(answer(score, x, schedule.drift(t), schedule.diffusion(t), eta))


def reverse_walk(answer: Callable, inputs: dict, network: None) -> list:
    model, (x, eta, noise) = _model(inputs), given(inputs, "x", "eta", "noise")

    def score(x, t):
        if x.is_complex():
            raise ValueError(
                "score: x has become complex. t falls, so t_b − t_a is negative: take the root "
                "of g²·(t_a − t_b)"
            )
        return model(x, model.schedule.at(float(t))).score

    f, g2 = (
        lambda t, of=of: of(float(t)) for of in (model.schedule.drift, model.schedule.diffusion)
    )
    return arrays(answer(score, x, inputs["times"].tolist(), f, g2, eta, noise))


def same_curve(answer: Callable, inputs: dict, network: None) -> list:
    levels = (Level(*map(float, inputs[name])) for name in "ab")
    return arrays(answer(*given(inputs, "x", "u"), *levels))


def log_density(answer: Callable, inputs: dict, network: None) -> list:
    model, times = _model(inputs), inputs["times"].tolist()
    velocity = lambda x, t: model(x, model.schedule.at(float(t))).velocity
    end = model.schedule.at(times[-1])
    log_prior = lambda x: mixture_of(inputs).log_prob(x, end)
    return arrays(answer(velocity, log_prior, *given(inputs, "x"), times))
