"""What crosses between the judge and an answer: inputs as the answer is given them, and what it
returned as arrays.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch


def given(inputs: dict, *names: str) -> list:
    """These inputs of a case (by default all): arrays as tensors of their own, numbers as
    numbers.
    """
    values = [np.asarray(inputs[name]) for name in names or inputs]
    return [value.item() if value.ndim == 0 else torch.tensor(value) for value in values]


def plainly(answer: Callable, inputs: dict, network: Callable | None) -> list[np.ndarray]:
    """The call of an answer whose arguments are the inputs, in their order."""
    return arrays(answer(*given(inputs)))


def arrays(returned) -> list[np.ndarray]:
    """What an answer returned: one array, or one of each thing in a tuple, list or generator;
    none at all for None, which judges know as a lacking `return`.
    """
    if isinstance(returned, torch.Tensor | np.ndarray | dict | str) or np.isscalar(returned):
        return [array(returned)]
    if returned is None or not isinstance(returned, Iterable):
        return each([returned])
    things = list(returned)
    if len(things) == 1:
        raise ValueError(
            f"the answer returned a {_kind(returned)} of one thing: return the thing"
        )
    for k, thing in enumerate(things, start=1):
        if thing is None:
            raise ValueError(f"thing {k} of the {len(things)} that the answer returned is None")
    return [array(thing) for thing in things]


def each(returned: Iterable) -> list[np.ndarray]:
    """What an answer returned when it was called several times, one thing each time; none at
    all if once it was None.
    """
    things = list(returned)
    return [] if any(thing is None for thing in things) else [array(thing) for thing in things]


def stacked(returned):
    """What an answer returned that must be one tensor: a list or generator of tensors of one
    shape, or of numbers, is stacked and keeps its gradient, and so is a tuple of numbers; all
    else is left as it is.
    """
    things = list(returned) if isinstance(returned, Iterator) else returned
    kinds = torch.Tensor | int | float
    if not isinstance(things, list | tuple) or not all(isinstance(x, kinds) for x in things):
        return things
    one = lambda x: x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=torch.float64)
    shapes = {one(x).shape for x in things}
    alike = len(shapes) == 1 and (isinstance(things, list) or shapes == {()})
    return torch.stack([one(x) for x in things]) if alike else things


def pair(returned, names: str) -> list[np.ndarray]:
    """What an answer returned that must return two things, these; none at all for None."""
    found = arrays(returned)
    if len(found) == 1 and len(np.atleast_1d(found[0])) == 2:
        found = list(found[0])
    if len(found) not in (0, 2):
        raise ValueError(
            f"the answer returned {len(found)} thing{'s' * (len(found) > 1)}, wanted two: return "
            f"{names}"
        )
    return found


def numbers_of(returned) -> list[np.ndarray]:
    """What an answer returned that must return several numbers: also where they are one vector,
    or each is an array of one.
    """
    found = arrays(returned)
    if len(found) == 1 and found[0].ndim == 1:
        found = list(found[0])
    return [np.reshape(value, ()) if np.size(value) == 1 else value for value in found]


def said(answers: Iterable) -> list[np.ndarray]:
    """The answers of a test, as one array of 0 and 1; none at all if one is None."""
    try:
        answers = list(answers)
    except AssertionError:
        raise ValueError(
            "the answer stopped at an assert: return False where what it tests is wrong"
        ) from None
    if any(value is None for value in answers):
        return []
    return [np.array([float(bool(value)) for value in answers])]


def array(value) -> np.ndarray:
    """One thing as an array: single precision stays what it is, so that it can be named;
    everything else becomes float64.
    """
    if isinstance(value, torch.Tensor):
        low = value.is_floating_point() and value.dtype != torch.float64
        value = (value.float() if low else value).detach().numpy()
    if isinstance(value, list) or _of_numbers(value):
        value = [array(entry) for entry in value]
    if isinstance(value, tuple | dict | str | bytes | set) or value is None:
        raise ValueError(f"the answer returned a {_kind(value)}, wanted a tensor or a number")
    value = np.asarray(value)
    if np.iscomplexobj(value):
        raise ValueError("the answer returned complex numbers: was a root of a negative taken?")
    return value if value.dtype == np.float32 else value.astype(np.float64)


def _of_numbers(value) -> bool:
    """Whether this is a tuple that a list could stand for: of numbers, or of rows of them."""
    return isinstance(value, tuple) and all(
        isinstance(entry, list) or _of_numbers(entry) or _number(entry) for entry in value
    )


def _number(value) -> bool:
    return np.isscalar(value) or (isinstance(value, torch.Tensor) and value.ndim == 0)


def _kind(value) -> str:
    return type(value).__name__
