"""claim, figure, show: what they accept, what they refuse, what they leave in an output."""

import base64
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from book import claim, figure, show, verbs
from book.source import source_of


@pytest.fixture(autouse=True)
def displayed(monkeypatch):
    """What was displayed, as (data, metadata), with an empty list of claims."""
    shown = []
    monkeypatch.setattr(verbs, "_claimed", {})
    monkeypatch.setattr(
        verbs, "_display", lambda data, jupyter=None, **facts: shown.append((data, facts))
    )
    return shown


def test_a_claim_s_line_ends_with_its_value(displayed):
    claim("C08.2", "order 2", 1.98765, between=(1.85, 2.15))
    ((data, facts),) = displayed
    assert data == {"text/plain": "✓ C08.2  order 2  [between 1.85 and 2.15]  ▸ measured 2.0"}
    assert facts["measured"] == 1.98765 and facts["bound"] == "between 1.85 and 2.15"


@pytest.mark.parametrize(
    ("value", "bound", "said"),
    [
        (1.94e-13, {"below": 1e-12}, "1.9e-13"),
        (521.8, {"above": 10}, "520"),
        (-11.47, {"below": 0}, "-11"),
        (0.1, {"below": 1}, "0.10"),
        (10.186, {"above": 10}, "10.2"),  # not "10", which is not above 10
        (0.15625, {"between": (0.156, 0.157)}, "0.156"),
        (0.0, {"below": 1}, "0"),
        (torch.tensor(3), {"between": (1, 4)}, "3"),
        (True, {"above": 0}, "1"),
    ],
)
def test_a_value_has_two_digits_or_as_many_as_its_bound_needs(value, bound, said, displayed):
    claim("C08.1", "some", value, **bound)
    assert displayed[0][0]["text/plain"].endswith(f"]  {verbs.MARK}{said}")


@pytest.mark.parametrize("value", [True, 1, 1.0])
def test_a_value_that_its_bound_says_already_is_not_said_again(value, displayed):
    claim("C08.1", "is one", value, between=(1, 1))
    assert displayed[0][0] == {"text/plain": "✓ C08.1  is one  [exactly 1]"}


@pytest.mark.parametrize(
    "value", [True, np.float32(1), np.array(1.0), torch.tensor(1.0), torch.tensor([1.0])]
)
def test_whatever_float_takes_can_be_claimed(value, displayed):
    claim("C08.1", "is one", value, between=(1, 1))
    assert displayed[0][1]["measured"] == 1.0 and "exactly 1" in displayed[0][0]["text/plain"]


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        (2.2, {"between": (1.85, 2.15)}),
        (1.8, {"between": (1.85, 2.15)}),
        (1.0, {"below": 1.0}),
        (1.0, {"above": 1.0}),
        (math.nan, {"between": (-9, 9)}),
        (math.nan, {"below": 9}),
        (math.inf, {"above": 0}),
        (False, {"between": (1, 1)}),
    ],
)
def test_a_false_claim_raises_with_number_and_bound(value, bound, displayed):
    with pytest.raises(
        AssertionError, match="C08.2 does not hold: order 2. Measured .*, wanted "
    ):
        claim("C08.2", "order 2", value, **bound)
    assert not displayed


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        (1.85, {"between": (1.85, 2.15)}),
        (2.15, {"between": (1.85, 2.15)}),
        (0.9, {"below": 1}),
        (1.1, {"above": 1}),
    ],
)
def test_ends_of_between_are_included(value, bound):
    claim("C08.2", "order 2", value, **bound)


@pytest.mark.parametrize("bound", [{}, {"below": 1, "above": 0}, {"between": (0, 1), "below": 1}])
def test_exactly_one_bound(bound):
    with pytest.raises(TypeError, match="exactly one"):
        claim("C08.2", "order 2", 0.5, **bound)


def test_an_empty_interval_is_an_error():
    with pytest.raises(ValueError, match="the lower end comes first"):
        claim("C08.2", "order 2", 1.5, between=(2, 1))


@pytest.mark.parametrize(
    ("ends", "says"), [((2, math.inf), "write above=2"), ((-math.inf, 2), "or below=2")]
)
def test_an_interval_has_two_ends(ends, says):
    with pytest.raises(ValueError, match=says):
        claim("C08.2", "order 2", 2.5, between=ends)


@pytest.mark.parametrize("id", ["8.2", "C8.2", "C08-2", "C08.2b", "c08.2"])
def test_an_id_has_one_form(id):
    with pytest.raises(ValueError, match="like 'C08.2'"):
        claim(id, "order 2", 2, below=3)


def test_an_id_is_taken_once_but_a_cell_may_run_again():
    claim("C08.2", "order 2", 2, below=3)
    claim("C08.2", "order 2", 2.1, below=3)
    with pytest.raises(ValueError, match="C08.2 is already taken by 'order 2'"):
        claim("C08.2", "order 3", 2, below=3)


def test_a_figure_is_the_same_bytes_twice_and_needs_words(displayed):
    for _ in range(2):
        drawing = Figure(figsize=(2, 1))
        drawing.subplots().plot([0, 1])
        figure(drawing, "It rises.", caption="A line.")
    (first, facts), (caption, _), (second, _), _ = displayed
    assert first["image/png"] == second["image/png"] and "image/png" not in caption
    # it would name the version of matplotlib
    assert b"Software" not in base64.b64decode(first["image/png"])
    assert (facts["alt"], facts["caption"]) == ("It rises.", "A line.")
    with pytest.raises(ValueError, match="alt text is empty"):
        figure(Figure(), "  ")


def test_show_prints_the_file_s_own_text(displayed):
    show(claim, verbs.figure)
    (data, facts), (_, second) = displayed
    assert facts["file"] == "book/verbs.py" and (facts["name"], second["name"]) == (
        "claim",
        "figure",
    )
    source = source_of(Path(verbs.__file__), "claim")
    assert source.startswith("def claim(") and f"```python\n{source}```" in data["text/markdown"]


@pytest.mark.parametrize("thing", [verbs, 3])
def test_show_wants_a_function_or_class(thing):
    with pytest.raises(TypeError, match="hand in a function or a class"):
        show(thing)


def test_show_refuses_what_has_no_name_in_its_file():
    made = (lambda: lambda: 1)()
    with pytest.raises(ValueError, match="is not defined by name"):
        show(made)


def test_source_of_includes_decorators_and_dedents_methods(tmp_path):
    path = tmp_path / "m.py"
    path.write_text("class A:\n    @property\n    def b(self):\n        return 1\n\nx = 2\n")
    assert source_of(path, "A.b") == "@property\ndef b(self):\n    return 1\n"
    with pytest.raises(KeyError):
        source_of(path, "x")


@pytest.mark.filterwarnings("error")
def test_a_value_with_a_gradient_is_claimed_without_a_warning(displayed):
    claim("C99.97", "a loss", 2 * torch.ones((), requires_grad=True), below=3)
    assert len(displayed) == 1
