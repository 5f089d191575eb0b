"""What the process of an answer knows of the questions: how each answer is called, and no more.

`qNN.py` has a call for every question of its assignment whose answer wants more than numbers and
arrays; it bears the name of the student's function. Inputs, truth, mistakes and verdicts are in
`book.truth`, which nothing here imports: an answer that searches its process finds none of them.
Nor does a module here hold a solver, a loss or a sampler of `dlib`: from a function it is a short
way to all that its module holds.
"""

import importlib
import importlib.util
from collections.abc import Callable


def caller(number: str) -> Callable[[str], Callable]:
    """The function that an answer of this assignment defines ↦ how the answer is called: (answer,
    inputs, network) ↦ arrays. Imports torch.
    """
    from book.questions.values import plainly

    name = f"book.questions.q{number}"
    calls = vars(importlib.import_module(name)) if importlib.util.find_spec(name) else {}
    return lambda function: calls.get(function, plainly)
