"""How the answers of assignment 06 are called."""

from collections.abc import Callable

from book.questions.values import each, given

KINDS = ("omega", "scale", "extra")
FACES = ("eps", "v", "score")


def guide(answer: Callable, inputs: dict, network: None) -> list:
    return each(answer(*given(inputs), kind) for kind in KINDS)


def guided_x0(answer: Callable, inputs: dict, network: None) -> list:
    *arguments, omega = given(inputs)
    return each(answer(*arguments, face, omega) for face in FACES)
