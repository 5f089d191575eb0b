"""How the answers of assignment 08 are called."""

from collections.abc import Callable

from book.questions.problems import levels_of, model_of, walk
from book.questions.values import arrays, each, given


def ddim_step(answer: Callable, inputs: dict, network: Callable) -> list:
    (x,) = given(inputs, "x")
    return arrays(answer(model_of(inputs, network), x, *levels_of(inputs)))


def midpoint_step(answer: Callable, inputs: dict, network: Callable) -> list:
    """x after walks with so many steps."""

    def step(model, x, a, b, memory):
        return answer(model, x, a, b), None

    return _walks(step, inputs, network)


def two_m_step(answer: Callable, inputs: dict, network: Callable) -> list:
    def step(*arguments):
        found = answer(*arguments)
        if found is None or isinstance(found, tuple | list) and len(found) == 2:
            return found
        raise ValueError(
            f"the answer returned a {type(found).__name__}, wanted two things: x at level b, and "
            "the memory for the next step"
        )

    return _walks(step, inputs, network)


def _walks(step: Callable, inputs: dict, network: Callable) -> list:
    model, lams = model_of(inputs, network), inputs["lams"]
    cuts = [0, *(inputs["steps"] + 1).cumsum()]
    parts = [lams[a:b] for a, b in zip(cuts, cuts[1:])]
    return each(walk(step, model, *given(inputs, "x"), part) for part in parts)
