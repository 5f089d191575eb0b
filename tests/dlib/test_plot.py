"""The figure grammar: every verb returns a figure with named axes, and marks what it was asked
to mark.
"""

import subprocess
import sys

import pytest
import torch
from matplotlib.colors import to_hex

from dlib import Mixture, plot, vp
from toy_data import gmm5

POINTS = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) % 5


def test_endpoints_has_one_titled_panel_a_sampler_and_a_line_for_each_error():
    figure = plot.endpoints({"exact": POINTS, "off": POINTS + 0.5}, POINTS, LABELS)
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == ["exact", "off"]
    off_by = [
        max(abs(line.get_xdata()[1] - line.get_xdata()[0]) for line in ax.lines) for ax in shown
    ]
    assert off_by[0] == 0 and off_by[1] == pytest.approx(0.5)
    assert [ax.get_xlabel() for ax in shown] == ["$x_1$", "$x_1$"] and [
        ax.get_ylabel() for ax in shown
    ] == ["$x_2$", ""]


def test_trajectories_start_and_end_where_the_paths_do():
    ax = plot.trajectories(torch.stack([POINTS, POINTS + 1]), LABELS, "paths").axes[0]
    start, end = (scatter.get_offsets().data for scatter in ax.collections)
    assert torch.allclose(torch.tensor(start, dtype=torch.float32), POINTS)
    assert torch.allclose(torch.tensor(end, dtype=torch.float32), POINTS + 1)


def test_the_legend_of_convergence_leaves_a_curve_that_begins_low_alone():
    high, low = {6: 1.0, 48: 0.01}, {6: 0.02, 48: 0.01}
    assert (
        plot.convergence({"high": high}).axes[0].get_legend()
        and not plot.convergence({"high": high}).legends
    )
    figure = plot.convergence({"high": high, "low": low})
    assert figure.axes[0].get_legend() is None and len(figure.legends[0].get_texts()) == 2


def test_bridge_puts_every_peak_at_zero():
    axis = torch.linspace(-3, 3, 41)
    ax = plot.bridge(axis, {"low": 5 - axis**2, "high": -axis.abs()}, depth=9).axes[0]
    assert [max(line.get_ydata()) for line in ax.lines] == [0, 0] and ax.get_ylim()[0] == -9
    assert len({line.get_marker() for line in ax.lines}) == 2 and "nats" in ax.get_ylabel()
    assert not ax.get_legend().get_frame_on()
    with pytest.raises(ValueError, match="curve 'low'"):
        plot.bridge(axis, {"low": axis[1:]})


def test_annealing_has_noise_on_the_left_and_the_truth_dashed():
    ax = plot.annealing(
        ([10.0, 0.1], [0.5, 0.8]), {"run": ([10.0, 1.0], [0.5, 0.7])}, "share"
    ).axes[0]
    left, right = ax.get_xlim()
    assert left > right and ax.get_xscale() == "log" and ax.get_ylabel() == "share"
    assert ax.lines[0].get_linestyle() == "--" and list(ax.lines[1].get_ydata()) == [0.5, 0.7]
    with pytest.raises(ValueError, match="'run' has x of shape"):
        plot.annealing(([1.0], [1.0]), {"run": ([1.0], [])}, "share")


def test_per_lam_draws_stairs_where_there_is_one_value_a_step():
    lam = torch.linspace(-2, 2, 9)
    ax = plot.per_lam(
        {"steps": (lam, lam[1:] ** 2), "line": (lam, lam**2)}, "nats", truth=(lam, lam)
    ).axes[0]
    assert [patch.get_data().values.tolist() for patch in ax.patches] == [(lam[1:] ** 2).tolist()]
    assert ax.patches[0].get_data().edges.tolist() == lam.tolist() and ax.get_ylim()[0] == 0
    assert ax.lines[0].get_linestyle() == "--" and {
        text.get_text() for text in ax.get_legend().get_texts()
    } == {"exact", "steps", "line"}
    assert (
        plot.per_lam({"line": (lam, lam**2 + 1)}, "weight", log=True).axes[0].get_yscale()
        == "log"
    )
    with pytest.raises(ValueError, match=r"'short' has x of shape \(9,\) and y of shape \(7,\)"):
        plot.per_lam({"short": (lam, lam[2:])}, "nats")


def test_along_path_draws_the_truth_dashed_and_shades_the_step():
    lam = torch.linspace(-1, 1, 30)
    ax = plot.along_path(lam, lam**2, {"frozen": lam * 0}, "ε", step=(0.0, 0.5)).axes[0]
    assert ax.lines[0].get_linestyle() == "--" and ax.lines[1].get_linestyle() == "-"
    assert "λ" in ax.get_xlabel() and ax.get_ylabel() == "ε"
    assert len(ax.patches) == 1


def test_convergence_is_log_log_with_floor_slopes_and_its_own_marker_for_each_curve():
    curves = {name: {6: 1.0, 12: 0.25, 24: 0.0625} for name in ("a", "b", "c")}
    ax = plot.convergence(curves, floor=0.1, slopes=(1, 2)).axes[0]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    markers = [line.get_marker() for line in ax.lines[:3]]
    assert len(set(markers)) == 3
    assert {text.get_text() for text in ax.texts} == {"sampling floor", "slope 1", "2"}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["6", "12", "24"]


def test_pipeline_draws_a_bar_from_the_first_to_the_last_step_of_each_solve():
    figure = plot.pipeline([[(0, 0)], [(0, 0), (0, 1)], [(1, 1), (0, 1)], [(1, 1)]])
    ax = figure.axes[0]
    bars = {
        (bar.get_x(), bar.get_width(), bar.get_y() + bar.get_height() / 2): to_hex(
            bar.get_facecolor()
        ).upper()
        for bar in ax.patches
    }
    assert {
        (x, width, round(y)): colour for (x, width, y), colour in bars.items() if y < round(y)
    } == {(0, 2, 0): plot.CYCLE[0], (1, 2, 1): plot.CYCLE[0]}
    assert {
        (x, width, round(y)): colour for (x, width, y), colour in bars.items() if y > round(y)
    } == {(2, 2, 1): plot.CYCLE[1]}
    assert (
        [text.get_text() for text in ax.texts] == ["1", "1", "2"]
        and ax.yaxis_inverted()
        and ax.get_xlim() == (0, 4)
    )
    with pytest.raises(ValueError, match="no call makes a fine step"):
        plot.pipeline([[], []])


def test_convergence_refuses_nothing_to_draw():
    with pytest.raises(ValueError, match="no curves"):
        plot.convergence({})


def test_pictures_put_ink_on_paper():
    figure = plot.pictures(
        {"first": torch.full((3, 1, 8, 8), -1.0), "second": torch.ones(3, 1, 8, 8)}
    )
    first, second = (ax.images[0].get_array() for ax in figure.axes)
    # −1 is paper, +1 is ink; the map is grey from black to white
    assert first[4, 5] == 1 and second[4, 5] == -1
    assert first.shape == (8, 30)


def test_pictures_in_colour_keep_their_channels_and_their_paper_white():
    x = torch.ones(2, 3, 4, 4)
    x[0, 1:] = -1.5  # red, and beyond the scale
    row = plot.pictures({"one": x}).axes[0].images[0].get_array()
    assert row.shape == (4, 12, 3)
    assert (
        row[0, 1].tolist() == [1, 0, 0]
        and row[0, 7].tolist() == [1, 1, 1]
        and row[0, 5].tolist() == [0.5] * 3
    )
    with pytest.raises(ValueError, match="row 'two' has shape"):
        plot.pictures({"two": torch.ones(2, 2, 4, 4)})


def test_score_error_puts_the_first_coordinate_across_and_one_scale_on_every_panel():
    axis = torch.linspace(-2, 2, 9)
    x = torch.cartesian_prod(axis, axis)
    wrong_on_the_right, density = 1 + x[:, 0].clamp(min=0), -10 * x.square().sum(1)
    figure = plot.score_error(
        {"first": (wrong_on_the_right, density), "second": (wrong_on_the_right / 2, density)},
        axis,
        depths=(-5, -20),
    )
    first, second, bar = figure.axes
    heat = first.collections[0].get_array().reshape(9, 9)
    assert heat[4, 8] == 3 and heat[4, 0] == heat[8, 4] == 1
    assert (
        first.collections[0].get_clim()
        == second.collections[0].get_clim()
        == pytest.approx((0.003, 3))
    )
    assert list(first.collections[1].levels) == [-20, -5]
    assert [ax.get_title(loc="left") for ax in (first, second)] == ["first", "second"]
    assert (first.get_xlabel(), first.get_ylabel()) == (
        "$x_1$",
        "$x_2$",
    ) and "score error" in bar.get_xlabel()
    with pytest.raises(ValueError, match="panel 'short'.*wanted \\(81,\\)"):
        plot.score_error({"short": (density[:9], density[:9])}, axis)


def test_sweeps_leaves_exact_zeros_white_and_dashes_what_is_promised():
    error = torch.tensor([[0, 1.0, 2.0, 3.0], [0, 0, 1e-3, 2.0], [0, 0, 0, 1e-6]])
    figure = plot.sweeps({"first": error, "second": 10 * error[:2]})
    first, second, bar = figure.axes
    shown = first.images[0].get_array()
    assert (shown.mask == (error == 0).numpy()).all() and shown[1, 2] == pytest.approx(1e-3)
    assert first.images[0].get_clim() == second.images[0].get_clim() == pytest.approx((1e-6, 30))
    assert first.get_ylim() == second.get_ylim() == (2.5, -0.5)
    assert first.lines[0].get_linestyle() == "--" and first.lines[0].get_xydata().tolist() == [
        [0, 0],
        [2, 2],
    ]
    assert [ax.get_title(loc="left") for ax in (first, second)] == [
        "first",
        "second",
    ] and "exactly 0" in bar.get_xlabel()
    assert (first.get_xlabel(), first.get_ylabel()) == (
        "point $j$  (noise → data)",
        "after sweep $k$",
    ) and first.yaxis_inverted()
    with pytest.raises(ValueError, match="panel 'flat' has shape"):
        plot.sweeps({"flat": error[0]})
    with pytest.raises(ValueError, match="exactly zero"):
        plot.sweeps({"none": 0 * error})


def test_modes_colours_what_lies_in_a_mode_and_greys_the_rest():
    mixture = gmm5()
    points = torch.cat([mixture.means, torch.zeros(1, 2, dtype=torch.float64)])
    figure = plot.modes({"first": points, "second": points[:5]}, mixture)
    colours = figure.axes[0].collections[0].get_facecolors()
    assert [to_hex(colour, keep_alpha=False).upper() for colour in colours] == [
        c.upper() for c in (*plot.MODES, plot.GREY)
    ]
    circle = figure.axes[1].lines[2].get_xydata() - mixture.means[2].numpy()
    assert (circle**2).sum(1) == pytest.approx((3 * 0.3) ** 2)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["first", "second"] and len(
        figure.axes[0].lines
    ) == 5


def test_ledger_shows_each_share_the_truth_and_what_is_in_no_mode():
    ax = plot.ledger(
        {"data": torch.tensor([0.5, 0.5]), "student": torch.tensor([0.7, 0.1])},
        torch.tensor([0.6, 0.4]),
    ).axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert heights == [pytest.approx([0.5, 0.5, 0.0]), pytest.approx([0.7, 0.1, 0.2])]
    assert [segment[0][1] for segment in ax.collections[0].get_segments()] == pytest.approx(
        [0.6, 0.4]
    )
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "none"]


def test_audit_draws_the_exact_derivative_dashed_and_the_loss_s_as_markers():
    x = torch.linspace(0.5, 1, 5)
    ax = plot.audit(x, {"exact": x**2}, {"loss": x}, "$s$", "$\\partial$").axes[0]
    exact, found, zero = ax.lines
    assert (
        exact.get_linestyle() == "--"
        and found.get_linestyle() == "None"
        and found.get_marker() == "o"
    )
    assert list(exact.get_ydata()) == pytest.approx((x**2).tolist()) and set(
        zero.get_ydata()
    ) == {0}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$s$", "$\\partial$")
    assert ax.get_ylim()[0] < 0  # the line at zero is always in sight


def test_commutator_shows_what_lies_above_the_diagonal_on_one_scale():
    matrix = torch.arange(1.0, 17).view(4, 4)
    figure = plot.commutator(
        {"first": matrix, "second": matrix / 3}, torch.tensor([-2.0, -1.0, 0.0, 3.5])
    )
    first, second, bar = figure.axes
    heat = first.images[0].get_array()
    assert heat[0, 3] == 4 and heat[2, 3] == 12 and heat.mask[3, 0] and heat.mask[1, 1]
    assert first.images[0].get_clim() == second.images[0].get_clim() == pytest.approx((0.12, 12))
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["-2.0", "0.0", "3.5"]
    assert "distance" in bar.get_xlabel() and first.get_ylabel() == "start at $\\lambda_i$"
    with pytest.raises(ValueError, match="panel 'small'.*wanted \\(4, 4\\)"):
        plot.commutator({"small": matrix[:3, :3]}, torch.zeros(4))


def test_over_density_draws_the_same_dashed_contours_under_each_panel_s_points():
    across, down = torch.linspace(-2, 2, 21), torch.linspace(-1, 1, 11)
    log_density = -torch.cartesian_prod(across - 1, down).square().sum(1) - 7
    first, second = plot.over_density(
        {"a": (POINTS, LABELS), "b": (POINTS, LABELS * 0 - 1)},
        log_density,
        (across, down),
        (-0.25,),
    ).axes
    for ax in (first, second):
        dots, lines = ax.collections
        assert torch.allclose(torch.tensor(dots.get_offsets().data, dtype=torch.float32), POINTS)
        ring = torch.tensor(lines.get_paths()[0].vertices, dtype=torch.float32)
        # x₁ runs across, the peak is at (1, 0)
        assert torch.allclose(
            (ring - torch.tensor([1.0, 0.0])).norm(dim=1), torch.tensor(0.5), atol=0.03
        )
    assert {to_hex(c) for c in second.collections[0].get_facecolors()} == {plot.GREY}
    assert to_hex(first.collections[0].get_facecolors()[1]) == plot.MODES[1].lower()
    with pytest.raises(ValueError, match="wanted \\(231,\\)"):
        plot.over_density({"a": (POINTS, LABELS)}, log_density[:-1], (across, down))


def test_the_library_itself_does_not_import_matplotlib():
    code = "import sys, dlib; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_fans_draw_every_path_over_its_time_in_its_start_s_colour():
    levels, line = (
        vp().levels([1.0, 0.5, 0.1]),
        Mixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1)),
    )
    paths = torch.arange(12.0).reshape(3, 4) / 12
    figure = plot.fans({"ODE": paths, "SDE": paths + 1}, levels, torch.tensor([0, 0, 1, 1]), line)
    ode, sde = figure.axes
    assert (
        ode.get_title(loc="left") == "ODE"
        and ode.get_xlim() == (1.0, 0.1)
        and len(sde.lines) == 4
    )
    assert sde.lines[2].get_ydata().tolist() == pytest.approx((paths[:, 2] + 1).tolist())
    assert [to_hex(line.get_color()).upper() for line in ode.lines] == [plot.MODES[0]] * 2 + [
        plot.MODES[1]
    ] * 2
    with pytest.raises(ValueError, match="has 2 states, wanted 3"):
        plot.fans({"short": paths[:2]}, levels, torch.zeros(4), line)


def test_one_curve_has_every_schedule_on_both_sides_noise_left():
    t = torch.linspace(0, 1, 5)
    left, right = plot.one_curve({"vp": (t, t, t + 1, t), "flow": (t, 2 * t, t + 1, t)}).axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["vp", "flow"] and len(
        right.lines
    ) == 2
    assert (
        left.get_xlim() == (1, 0)
        and right.get_xlim()[0] > right.get_xlim()[1]
        and right.get_xscale() == "log"
    )
    assert right.lines[0].get_linewidth() > right.lines[1].get_linewidth()


def test_log_density_puts_dashed_truth_over_what_was_found():
    axis = torch.linspace(-3, 3, 13)
    points = torch.cartesian_prod(axis, axis)
    truth = -points.square().sum(1) / 2 - points[:, 0]
    ax = plot.log_density(truth + 1, truth, axis).axes[0]
    levels = ax.collections[0].levels
    # the map is of what was found …
    assert levels[0] == -18 and levels[-1] == pytest.approx((truth + 1).max().item())
    peak = ax.collections[0].get_paths()[-1].vertices.mean(0)
    assert peak[0] == pytest.approx(-1, abs=0.3) and abs(peak[1]) < 0.3  # … and x₁ runs across
    assert "dashed" in ax.figure.axes[1].get_ylabel()
    with pytest.raises(ValueError, match="one value a point"):
        plot.log_density(truth[:5], truth, axis)


def test_scores_have_a_row_a_method_their_errors_and_a_dashed_bar():
    found = {"ratio": {"CD": (1.1, 0.1), "CT": (3.0, 0.5)}, "RMS": {"CT": (0.2, 0.5)}}
    figure = plot.scores(found, {"ratio": 1.2})
    left, right = figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["CD", "CT"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["ratio", "RMS"]
    (ends,) = left.collections[0].get_segments()
    assert ends[:, 0].tolist() == pytest.approx([1.0, 1.2]) and ends[:, 1].tolist() == [0, 0]
    assert [line.get_xdata()[0] for line in left.lines if line.get_linestyle() == "--"] == [1.2]
    (ends,) = right.collections[0].get_segments()  # an error above the value stays on the axis
    assert 0 < ends[0, 0] < 0.01 and ends[:, 1].tolist() == [1, 1]
    with pytest.raises(ValueError, match="RMS of 'CT' is 0"):
        plot.scores({"RMS": {"CT": (0.0, 0.1)}})
