"""How the answers of assignment 17 are called."""

from collections.abc import Callable

import numpy as np

from book.questions.problems import levels_of
from book.questions.values import arrays, each, given, numbers_of


def weights_of(answer: Callable, inputs: dict, network: None) -> list:
    """The weights in the middle of the schedule, and near its clean end."""
    levels = levels_of(inputs)
    clean, noise, references = (given(inputs, k)[0] for k in ("clean", "noise", "references"))
    return each(answer(a.alpha * clean + a.sigma * noise, references.clone(), a) for a in levels)


def mean_and_step(answer: Callable, inputs: dict, network: None) -> list:
    return arrays(answer(*given(inputs, "x", "weights", "references"), *levels_of(inputs)))


def over_batches(answer: Callable, inputs: dict, network: None) -> list:
    """Three numbers for every batch size, one array of each."""
    atoms, prior, *numbers = given(inputs, "atoms", "prior", "x_t", "alpha", "sigma")
    found = [numbers_of(answer(atoms.clone(), prior.clone(), *numbers, n)) for n in (1, 2, 4)]
    return [] if any(not things for things in found) else [np.stack(k) for k in zip(*found)]
