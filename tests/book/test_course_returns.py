"""What answers return, in packings and dtypes of all kinds: taken if it is right, named if not."""

import pytest
from course import every_course

COURSES = {course.number: course for course in every_course()}
PAIR = "d1 + (lam[0] - lam[1]) * d2, 2 * d2"


@pytest.mark.parametrize(
    ("id", "old", "new", "says"),
    [
        ("Q08.5", PAIR, f"torch.stack([{PAIR}])", "right"),
        ("Q08.5", PAIR, f"(value for value in ({PAIR}))", "right"),
        ("Q08.5", PAIR, f"[{PAIR}]", "right"),
        ("Q08.5", PAIR, "d1 + (lam[0] - lam[1]) * d2", "got 1 array, wanted 2"),
        ("Q08.5", PAIR, f"{PAIR}, d2", "got 3 arrays, wanted 2: slope, curvature"),
        ("Q08.5", PAIR, "d1 + (lam[0] - lam[1]) * d2, None", "thing 2 of the 2 that the answer"),
        ("Q08.5", PAIR, "{'slope': d1}", "returned a dict"),
        ("Q08.2", "return b.alpha", "return None, b.alpha", "thing 1 of the 2"),
        ("Q08.2", "prediction.eps", "prediction.eps,", "a tuple of one thing: return the thing"),
        ("Q13.4", "s.sigma * eps", "s.sigma * eps, eps", "returned a tuple"),
        ("Q03.5", "return prior", "return prior[None]", "right"),
        ("Q03.5", "* kappa**2))", "* kappa**2)).reshape(1, 1)", "right"),
        ("Q06.3", "return mean", "return torch.tensor([mean], dtype=torch.float64)", "right"),
        ("Q06.3", "return mean", "return mean + 0j", "complex numbers"),
        (
            "Q13.1",
            "return skip",
            "return skip.float()",
            "c_skip is right, but in single precision",
        ),
        (
            "Q13.1",
            "return skip",
            "return 1 - skip.float()",
            "be 1 at κ_min (It is in float32, too",
        ),
        ("Q20.4", "output) / alpha", "output).float() / alpha", "single precision"),
        ("Q08.3", "start = model(x, a)", "x = x.float()\n    start = model(x, a)", "right"),
        ("Q08.3", "start = model(x, a)", "x = x.half()\n    start = model(x, a)", "float64"),
        ("Q08.4", "model(x, a).x0,", "model(x.float(), a).x0,", "single precision"),
    ],
)
def test_what_an_answer_returns_is_named_or_taken(id, old, new, says):
    course = COURSES[id[1:3]]
    assert course.solution[id].count(old) == 1
    try:
        verdict = course.judged(id, course.solution[id].replace(old, new))
    except ValueError as error:
        verdict = (0, str(error))
    assert says in verdict[1] and (verdict[0] == 1) is (says == "right")
