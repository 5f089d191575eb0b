"""Curves: what they mark, where their axes end, what they refuse; a training history as one."""

import pytest
import torch
from matplotlib.colors import to_hex

from dlib import plot


def test_curves_have_a_colour_and_a_marker_each_and_their_markers_side_by_side():
    x = torch.linspace(0.1, 1, 80)
    figure = plot.curves(
        {"one": (x, x**2), "two": (x.tolist(), (x**2).tolist()), "three": ([1, 2], [3, 4])},
        {"derived": (x, x), "the floor of every x": 0.25},
        points={"measured": ([1], [2])},
        xlabel="step",
        ylabel="loss",
        xlim=(1, 0.1),
        ylim=(0, None),
        band=(0.2, 0.4),
    )
    (ax,) = figure.axes
    derived, level, one, two, three, dot = ax.lines
    assert derived.get_linestyle() == level.get_linestyle() == "--"
    assert set(level.get_ydata()) == {0.25} and level.get_xdata() == [0, 1]  # of the axes' width
    assert [to_hex(line.get_color()).upper() for line in (one, two, three)] == list(
        plot.CYCLE[:3]
    )
    assert [line.get_marker() for line in (one, two, three, dot)] == ["o", "s", "D", "o"]
    assert (one.get_markevery(), two.get_markevery()) == ((0, 10), (3, 10))
    assert three.get_markevery()[1] == 1 and dot.get_linestyle() == "None"
    assert ax.get_xlim() == (1, 0.1) and ax.get_ylim()[0] == 0 and len(ax.patches) == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["derived", "the floor of every x", "one", "two", "three", "measured"]


def test_the_sampling_floor_lies_under_its_value_and_leaves_the_axis_alone():
    line = {"a": ([1, 10], [1.0, 1e-3])}
    with_floor = plot.curves(line, xlabel="", ylabel="", log="xy", floor=0.01).axes[0]
    without = plot.curves(line, xlabel="", ylabel="", log="xy").axes[0]
    (shade,) = with_floor.patches
    assert with_floor.get_ylim() == without.get_ylim()
    assert (shade.get_y(), shade.get_y() + shade.get_height()) == pytest.approx(
        (without.get_ylim()[0], 0.01)
    )


@pytest.mark.parametrize(
    ("lines", "log", "says"),
    [
        ({}, "", "no curves given"),
        ({str(k): ([1], [k]) for k in range(9)}, "", "9 curves, and 8 colours"),
        ({"a": ([1, 2, 3], [1])}, "", "'a' has x of shape"),
        ({"a": ([1, 2], [[1], [2]])}, "", "'a' has x of shape"),
        ({"a": ([1, 2], [0.5, 0.0])}, "y", "'a' has y = 0, which a logarithmic axis cannot show"),
        ({"a": ([0, 2], [0.5, 0.1])}, "xy", "'a' has x = 0"),
        ({"a": ([1], [1])}, "z", "log = 'z', wanted"),
    ],
)
def test_curves_refuse_what_they_cannot_show(lines, log, says):
    with pytest.raises(ValueError, match=says):
        plot.curves(lines, xlabel="", ylabel="", log=log)


def test_a_history_becomes_a_curve_of_means_over_its_last_steps():
    noisy = [float(k % 2) for k in range(100)]
    steps, means = plot.running_mean(noisy, over=10)
    assert steps.tolist() == list(range(10, 101)) and set(means.tolist()) == {0.5}
    steps, means = plot.running_mean([float(k) for k in range(1, 31)])
    assert (steps[0], means[0], steps[-1], means[-1]) == (20, 10.5, 30, 20.5)
    for over in (0, 31):
        with pytest.raises(ValueError, match=f"a mean over {over} steps of 30"):
            plot.running_mean([0.0] * 30, over)
