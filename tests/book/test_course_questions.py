"""The questions of assignment 08: right answers pass however they are spelled, wrong ones are told why."""

import pytest
from course import FUNCTION, OTHERWISE, SOLUTION, WRONG, cell

from book.questions import ask, question
from book.questions.answers import define
from book.questions.q08 import PRELUDE


def judged(id, source, seed=3):
    q = question(id)
    return ask(q, define(id, q.function, PRELUDE, source), seed)


@pytest.mark.parametrize("id", FUNCTION)
@pytest.mark.parametrize("seed", [1, 2])
def test_right_answers_pass_however_they_are_spelled(id, seed):
    assert judged(id, SOLUTION[id], seed).share == 1
    assert judged(id, cell(id, OTHERWISE[id]), seed).share == 1


@pytest.mark.parametrize(("id", "body", "says"), WRONG, ids=[f"{id}-{says}" for id, _, says in WRONG])
def test_wrong_answers_are_rejected_and_told_why(id, body, says):
    share, feedback = judged(id, cell(id, body))
    assert share < 1 and says in feedback
    if id in ("Q08.3", "Q08.4"):
        assert "slope" in feedback
