"""Verdicts do not hang on the draw: what is wrong is wrong with every seed, and told the same."""

import pytest
from course import question
from course26 import COURSE as REWARDS
from course27 import COURSE as POLICY

from book.truth import ask
from book.truth.spelling import spelled

COURSES = {"26": REWARDS, "27": POLICY}
LATE = "(expected - wanted).abs().max() <"
WRONG = {  # edits of the solution, and what each hears
    "Q26.3": {
        "eps = net(x, a) → x = x.detach(); eps = net(x, a)": "detached at each step",
        "if k < first: → if k <= first:": "one step too few",
    },
    "Q26.4": {
        ".clamp(min=0) →": "the positive part is missing",
        "(enough - reward(guess)).clamp(min=0) → 0 * reward(guess)": "off by 1.0e+00 (relative): all losses are 0",
        "zip(levels[:stop] → zip(levels[: stop + 1]\na = levels[stop] → a = levels[stop + 1]": (
            "one step too many"
        ),
        "zip(levels[:stop] → zip(levels[: stop - 1]\na = levels[stop] → a = levels[stop - 1]": (
            "one step too few"
        ),
        "with torch → stop = len(levels) - 1 - stop\n    with torch": "counted from the end",
        "with torch → stop = len(levels) - stop\n    with torch": "counted from the end",
    },
    "Q27.5": {
        f"{LATE} → (expected - wanted).abs()[0] <": "your test accepts",
        f"{LATE} → (expected - wanted).abs()[:3].max() <": "but for entry 3",
        "< 1e-9 → < 1e-8": "off by 4·10⁻⁹ in one entry",
        f"return bool({LATE} 1e-9) → return torch.allclose(expected, wanted)": "off by 4·10⁻⁹",
    },
}


@pytest.mark.parametrize("id", WRONG)
def test_what_is_wrong_is_wrong_with_every_seed(id):
    course = COURSES[id[1:3]]
    answers = [
        (course.defined(id, spelled(course.solution[id], edit)), says)
        for edit, says in WRONG[id].items()
    ]
    for seed in range(100, 110):
        case = question(id).draw(seed)
        for answer, says in answers:
            share, feedback = ask(question(id), answer, case)
            assert share < 1 and says in feedback, (seed, feedback)


def test_half_of_the_samples_of_refl_are_above_the_threshold():
    for seed in range(100, 110):
        losses, _ = question("Q26.4").draw(seed).values
        assert 2 * (losses > 0).sum() == len(losses)
