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


def caller(number: str, function: str) -> Callable:
    """(answer, inputs, network) ↦ arrays: how the answers that define this function are called.
    Imports torch.
    """
    from book.questions.values import plainly

    name = f"book.questions.q{number}"
    if importlib.util.find_spec(name) is None:
        return plainly
    return getattr(importlib.import_module(name), function, plainly)
