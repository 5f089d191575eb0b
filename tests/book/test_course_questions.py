"""The questions of every assignment: right answers pass however they are spelled, wrong ones
are told why.
"""

import pytest
from course import BOOK, every_course

from book.questions import ask, question
from book.questions.answers import define, explain
from book.stale import read_notebook

COURSES = every_course()
EACH = [(course, id) for course in COURSES for id in course.heads]
WRONG = [(course, *wrong) for course in COURSES for wrong in course.wrong]


def judged(course, id, source, seed=3):
    q = question(id)
    return ask(q, define(id, q.function, course.module.PRELUDE, source), seed)


@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.number)
class TestTheAssignment:
    def test_is_fresh_and_its_first_cell_is_the_prelude(self, course):
        node = read_notebook(BOOK, course.assignment)
        assert (
            next(c for c in node.cells if c.cell_type == "code").source == course.module.PRELUDE
        )
        questions = course.module.QUESTIONS
        assert (
            [q.id for q in questions] == list(course.solution)
            and sum(q.points for q in questions) == 20
            and len(questions) <= 5
        )

    def test_states_the_points_in_its_text(self, course):
        text = "\n".join(c.source for c in course.assignment.cells if c.kind == "markdown")
        for q in course.module.QUESTIONS:
            head = f"## Question {int(course.number)}.{q.id[-1]}"
            assert head in text and f"({q.points} points)" in text.split(head)[1]

    def test_foresees_plausible_wrong_answers(self, course):
        count = {id: sum(wrong[0] == id for wrong in course.wrong) for id in course.heads}
        assert min(count.values()) >= 4


@pytest.mark.parametrize(("course", "id"), EACH, ids=[id for _, id in EACH])
@pytest.mark.parametrize("seed", [1, 2])
def test_right_answers_pass_however_they_are_spelled(course, id, seed):
    assert judged(course, id, course.solution[id], seed).share == 1
    assert judged(course, id, course.cell(id, course.otherwise[id]), seed).share == 1


@pytest.mark.parametrize(("course", "id"), EACH, ids=[id for _, id in EACH])
def test_an_answer_without_a_return_is_told_so(course, id):
    assert judged(course, id, course.cell(id, "pass")) == (
        0,
        "the answer returned None: is there a return at its end?",
    )


def test_a_loss_that_cannot_train_loses_a_part_and_hears_nothing_of_a_trace_it_lacks():
    course = next(course for course in COURSES if course.number == "01")
    share, feedback = judged(
        course, "Q01.4", course.solution["Q01.4"].replace("def ", "@torch.no_grad()\ndef ")
    )
    assert share == pytest.approx(2 / 3) and "trace" not in feedback
    cut = course.solution["Q01.3"].replace("x.clone()", "x.detach()")
    assert cut != course.solution["Q01.3"] and judged(course, "Q01.3", cut).share == 1


@pytest.mark.parametrize("sigma", ["sigma", "sigma[:, None]"])
def test_a_score_takes_its_sigma_in_every_shape(sigma):
    course = next(course for course in COURSES if course.number == "02")
    body = f"s = sigma[:, None]\nreturn 0.5 * (s * score(x0 + s * z, {sigma}) + z).pow(2).sum(1)"
    assert judged(course, "Q02.2", course.cell("Q02.2", body)).share == 1
    rows = (
        "return torch.stack([0.5 * (s * score((a + s * b)[None], s) + b).pow(2).sum() for "
        "a, b, s in zip(x0, z, sigma)])"
    )
    assert judged(course, "Q02.2", course.cell("Q02.2", rows)).share == 1


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_last_level_of_a_fifth_is_not_lost_to_rounding(seed, dtype):
    course = next(course for course in COURSES if course.number == "02")
    body = (
        "return torch.logspace(math.log10(apart), math.log10(width / 5), 24, "
        f"dtype=torch.{dtype}), calls // 24"
    )
    assert judged(course, "Q02.5", course.cell("Q02.5", body), seed).share == 1


def test_the_root_of_a_negative_number_is_named():
    course = next(course for course in COURSES if course.number == "04")
    body = course.otherwise["Q04.3"].replace("* -dt", "* dt")
    with pytest.raises(ValueError, match="has become complex"):
        judged(course, "Q04.3", course.cell("Q04.3", body))


@pytest.mark.parametrize(
    ("id", "old", "new", "says"),
    [
        ("Q03.3", "eps(x, a)", "eps(x, b)", "asked at the last level, where σ = 0"),
        (
            "Q08.4",
            "* D, memory",
            "* D",
            "returned a Tensor, wanted two things: x at level b, and the memory",
        ),
    ],
)
def test_what_stops_an_answer_is_said_in_the_question_s_words(id, old, new, says):
    course = next(course for course in COURSES if course.number == id[1:3])
    assert old in course.otherwise[id]
    with pytest.raises((TypeError, ValueError), match=says):
        judged(course, id, course.cell(id, course.otherwise[id].replace(old, new)))


@pytest.mark.parametrize(
    ("body", "leans"),
    [("return elsewhere", True), ("display(x)", True), ("y += 1\ny = 0", False)],
)
def test_only_an_unknown_name_is_looked_for_in_other_cells(monkeypatch, body, leans):
    # as in a notebook, but not in the grader
    monkeypatch.setattr("builtins.display", print, raising=False)
    with pytest.raises(NameError) as error:
        judged(COURSES[0], "Q01.4", COURSES[0].cell("Q01.4", body.replace("x", "x0")))
    assert ("its own cell, nothing else" in explain(error.value)) is leans


@pytest.mark.parametrize(
    ("course", "id", "body", "says"), WRONG, ids=[f"{id}-{says}" for _, id, _, says in WRONG]
)
def test_wrong_answers_are_rejected_and_told_why(course, id, body, says):
    share, feedback = judged(course, id, course.cell(id, body))
    assert share < 1 and says in feedback
    if id in ("Q08.3", "Q08.4"):
        assert "slope" in feedback
