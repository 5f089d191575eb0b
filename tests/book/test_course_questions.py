"""The questions of every assignment: right answers pass however they are spelled, wrong ones
are told why.
"""

from dataclasses import replace

import numpy as np
import pytest
from course import BOOK, every_course

from book.grading import frames
from book.grading.zygote import named
from book.questions.answers import explain
from book.release import answer_cells
from book.sheet import points, sheet
from book.stale import read_notebook
from book.truth import question
from book.truth.exact import Exact
from book.truth.spelling import edited

COURSES = {course.number: course for course in every_course()}
EACH = [(course, id) for course in COURSES.values() for id in course.solution]
WRONG = [(course, *wrong) for course in COURSES.values() for wrong in course.wrong]
RIGHT_TOO = [(course, *right) for course in COURSES.values() for right in course.right_too]
EXACT = [q for course in COURSES.values() for q in course.questions if isinstance(q, Exact)]
MISTAKES = [(q.id, why, cell) for q in EXACT for why, cell in q.wrong()]


@pytest.mark.parametrize("course", COURSES.values(), ids=COURSES)
class TestTheAssignment:
    def test_is_fresh_and_read_alike_with_and_without_the_press(self, course):
        node = read_notebook(BOOK, course.assignment)
        first = next(c for c in node.cells if c.cell_type == "code")
        assert first.source == course.prelude
        cells = answer_cells(course.assignment)
        assert {id: cell.source for id, cell in cells.items()} == course.solution

    def test_asks_at_most_five_questions_and_says_what_each_counts(self, course):
        text = "\n".join(c.source for c in course.assignment.cells if c.kind == "markdown")
        assert [q.id for q in course.questions] == list(course.solution) == list(points(text))
        assert points(text) == sheet(course.number).points
        assert all(q.points > 0 for q in course.questions) and len(course.questions) <= 5

    def test_foresees_plausible_wrong_answers(self, course):
        known = [id for id, _, _ in course.wrong] + [id for id, _, _ in MISTAKES]
        assert min(known.count(id) for id in course.solution) >= 4


@pytest.mark.parametrize(("course", "id"), EACH, ids=[id for _, id in EACH])
@pytest.mark.parametrize("seed", [1, 3])
def test_right_answers_pass_however_they_are_spelled(course, id, seed):
    assert course.judged(id, course.solution[id], seed).share == 1
    assert course.judged(id, course.cell(id, course.otherwise[id]), seed).share == 1


@pytest.mark.parametrize("course", COURSES.values(), ids=COURSES)
def test_inputs_are_of_the_same_kinds_for_the_grader_as_in_the_notebook(course):
    for q in course.questions:
        raw = q.draw(3).inputs
        found = named(list(raw), frames.unpack(frames.pack(list(raw.values())))[1])
        assert {name: kind(value) for name, value in raw.items()} == {
            name: kind(value) for name, value in found.items()
        }, q.id


def kind(value):
    """What an answer can tell of an input: a number's type, or an array's."""
    return type(value.item()) if isinstance(value, np.generic) else type(value)


@pytest.mark.parametrize(("course", "id", "body", "says"), RIGHT_TOO)
def test_the_library_s_answer_is_right(course, id, body, says):
    assert course.judged(id, course.cell(id, body)) == (1, says)


@pytest.mark.parametrize(("course", "id"), EACH, ids=[id for _, id in EACH])
def test_an_answer_without_a_return_is_told_so(course, id):
    assert course.judged(id, course.cell(id, "pass")) == (
        0,
        "the answer returned None: is there a return at its end?",
    )


@pytest.mark.parametrize(
    ("id", "why", "cell"), MISTAKES, ids=[f"{id}-{why[:40]}" for id, why, _ in MISTAKES]
)
def test_a_known_mistake_hears_its_own_explanation(id, why, cell):
    """With some seeds two mistakes are one, or a mistake is right (ε − x₀ is the velocity on a
    straight path); no seed lets one pass whose result differs from the truth.
    """
    course = COURSES[id[1:3]]
    verdicts = (course.judged(id, cell, seed) for seed in (3, 4, 5, 6, 7, 8))
    assert any(share < 1 and why in feedback for share, feedback in verdicts)


@pytest.mark.parametrize(
    ("course", "id", "body", "says"), WRONG, ids=[f"{id}-{says}" for _, id, _, says in WRONG]
)
def test_wrong_answers_are_rejected_and_told_why(course, id, body, says):
    share, feedback = course.judged(id, course.cell(id, body))
    assert share < 1 and says in feedback
    if id in ("Q08.3", "Q08.4"):
        assert "slope" in feedback or "right" in feedback


@pytest.mark.parametrize(
    ("mistakes", "says"),
    [
        ("prediction → p\n# why", "Q08.2, 'why': 'prediction' is in 3 places, wanted one"),
        ("gamma → tau\n# why", "Q08.2, 'why': 'gamma' is in 0 places, wanted one"),
        ("return x", "code without a comment at its end"),
    ],
)
def test_a_mistake_that_does_not_fit_the_solution_is_an_error(mistakes, says):
    with pytest.raises(ValueError) as error:
        replace(question("Q08.2"), mistakes=mistakes).draw(0)
    assert says in str(error.value)


def test_a_mistake_that_raises_an_exception_returns_nothing():
    mistakes = """
        raise RuntimeError("torch's own kind")  # raises
        return model(x[:, :1], a)  # is refused by the network
        (x, a) → (x, b)  # is asked at b
    """
    case = replace(question("Q08.2"), mistakes=mistakes).draw(0)
    assert [why for why, _ in case.mistakes()] == ["is asked at b"]


def test_a_loss_that_cannot_train_loses_a_part_and_hears_nothing_of_a_trace_it_lacks():
    course = COURSES["01"]
    untrained = course.solution["Q01.4"].replace("def ", "@torch.no_grad()\ndef ")
    share, feedback = course.judged("Q01.4", untrained)
    assert share == pytest.approx(2 / 3) and "trace" not in feedback
    assert "cannot train a network: their gradient in its weights is not. Autograd" in feedback


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_last_level_of_a_fifth_is_not_lost_to_rounding(seed, dtype):
    body = (
        "return torch.logspace(math.log10(apart), math.log10(width / 5), 24, "
        f"dtype=torch.{dtype}), calls // 24"
    )
    assert COURSES["02"].judged("Q02.5", COURSES["02"].cell("Q02.5", body), seed).share == 1


@pytest.mark.parametrize(
    ("id", "edit", "says"),
    [
        ("Q03.3", "eps(x, a) → eps(x, b)", "asked at the last level, where σ = 0"),
        ("Q04.3", "* -dt → * dt", "has become complex"),
        (
            "Q08.4",
            "* D, memory → * D",
            "a Tensor, wanted two things: x at level b, and the memory",
        ),
        ("Q05.1", "(x - sigma * w) / alpha, w → x", "1 thing, wanted two: return (x0, eps)"),
        ("Q05.3", "return False → assert False", "return False where what it tests is wrong"),
        ("Q26.5", "noise[k] → noise", "net takes points (B, 2): flatten first"),
    ],
)
def test_what_stops_an_answer_is_said_in_the_question_s_words(id, edit, says):
    course = COURSES[id[1:3]]
    with pytest.raises(ValueError) as error:
        course.judged(id, course.cell(id, edited(course.otherwise[id], edit)))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("body", "leans"),
    [("return elsewhere", True), ("get_ipython()", True), ("y += 1\ny = 0", False)],
)
def test_only_an_unknown_name_is_looked_for_in_other_cells(body, leans):
    with pytest.raises(NameError) as error:
        COURSES["01"].judged("Q01.4", COURSES["01"].cell("Q01.4", body))
    assert ("its own cell, nothing else" in explain(error.value)) is leans
