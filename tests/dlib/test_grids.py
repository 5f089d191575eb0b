"""Grids: each spacing is what its name says, ends where it was told to, and refuses the rest."""

import pytest
import torch
from truth import F64, SCHEDULES

from dlib import CLEAN, cosine, discrete, edm, flow, grid, levels, scaled_linear, vp
from dlib.grids import SPACINGS, pcm_edges

SD = SCHEDULES["discrete"]


def lams(schedule, times):
    return torch.tensor([level.lam for level in schedule.levels(times)], dtype=F64)


@pytest.mark.parametrize("schedule", [vp(), edm(), SD], ids=["vp", "edm", "discrete"])
def test_lam_is_uniform_in_lam(schedule):
    steps = lams(schedule, grid(schedule, 9)).diff()
    assert (steps / steps.mean() - 1).abs().max() < 1e-10


def test_time_is_uniform_in_time():
    assert grid(vp(), 4, "time", t_min=0.2).tolist() == pytest.approx(
        [1.0, 0.8, 0.6, 0.4, 0.2], rel=1e-15
    )


@pytest.mark.parametrize("schedule", [vp(), edm(), SD], ids=["vp", "edm", "discrete"])
def test_karras_is_uniform_in_kappa_to_the_seventh(schedule):
    root = (-lams(schedule, grid(schedule, 9, "karras")) / 7).exp()
    assert (root.diff() / root.diff().mean() - 1).abs().max() < 1e-9


@pytest.mark.parametrize("schedule", [vp(), edm(), SD], ids=["vp", "edm", "discrete"])
def test_arctan_is_uniform_in_its_angle(schedule):
    angle = ((-lams(schedule, grid(schedule, 9, "arctan"))).exp() / 0.5).sqrt().atan()
    assert (angle.diff() / angle.diff().mean() - 1).abs().max() < 1e-9


def test_edm_time_is_karras():
    assert (grid(edm(), 18, "karras") - grid(edm(), 18, "time")).abs().max() < 1e-12


def test_karras_reproduces_diffusers_indices():
    # 8 steps → 999, 890, 746, 549, 299, 90, 12, 0, found by interpolating n in log κ and rounding
    places = grid(SD, 7, "karras") * 1000 - 1
    assert places.round().tolist() == [999, 890, 746, 549, 299, 90, 12, 0]


@pytest.mark.parametrize(
    "spacing, n, indices",
    [
        ("sd_trailing", 4, [999, 749, 499, 249, 0]),
        ("sd_leading", 4, [751, 501, 251, 1, 0]),
        ("sd_trailing", 1, [999, 0]),
        ("sd_trailing", 3, [999, 666, 332, 0]),
        ("pcm", 4, [999, 739, 499, 239, 0]),
        ("pcm", 2, [999, 499, 0]),
        ("sd_leading", 3, [667, 334, 1, 0]),
        ("lcm", 1, [999, 0]),
        ("lcm", 2, [999, 499, 0]),
        ("lcm", 4, [999, 759, 499, 259, 0]),
        ("lcm", 8, [999, 879, 759, 639, 499, 379, 259, 139, 0]),
        ("lcm", 50, [*range(999, 0, -20), 0]),
    ],
)
def test_index_grids(spacing, n, indices):
    assert (grid(SD, n, spacing) * 1000 - 1).round(decimals=9).tolist() == indices


@pytest.mark.parametrize("spacing, n", [("sd_trailing", 50), ("sd_leading", 7), ("lcm", 4)])
@pytest.mark.parametrize("schedule", [flow(), vp(), edm()], ids=["flow", "vp", "edm"])
def test_a_formula_is_counted_in_a_thousand_indices(schedule, spacing, n):
    assert schedule.ladder is None and SD.ladder == 1000
    times = grid(schedule, n, spacing)
    assert torch.equal(times, grid(SD, n, spacing))
    assert torch.equal(pcm_edges(times, 3), pcm_edges(grid(SD, n, spacing), 3))


def test_index_grids_count_the_ladder_that_there_is():
    ladder = discrete(scaled_linear(n=250))
    assert ladder.ladder == 250
    assert (grid(ladder, 5, "sd_trailing") * 250 - 1).round().tolist() == [
        249,
        199,
        149,
        99,
        49,
        0,
    ]
    assert (grid(ladder, 5, "lcm") * 250 - 1).round().tolist() == [249, 199, 149, 99, 49, 0]


@pytest.mark.parametrize("spacing", list(SPACINGS))
@pytest.mark.parametrize("n", [1, 2, 10, 50, 333])
def test_n_plus_one_falling_float64_times(spacing, n):
    # they have 50 indices, and refuse more: see test_bad_input
    n = min(n, 50) if spacing in ("lcm", "pcm") else n
    times = grid(SD, n, spacing)
    assert times.shape == (n + 1,) and times.dtype == F64 and times.device.type == "cpu"
    assert (times.diff() < 0).all() and times[-1] == 1 / 1000


@pytest.mark.parametrize("spacing", ["sd_trailing", "sd_leading"])
@pytest.mark.parametrize("n", [500, 667, 700, 999])
def test_long_index_grids_fall_or_are_refused(spacing, n):
    try:
        times = grid(SD, n, spacing)
    except ValueError as error:
        assert "grid:" in str(error)
    else:
        assert (times.diff() < 0).all()


@pytest.mark.parametrize(
    "phases, indices",
    [
        (1, [0]),
        (2, [499, 0]),
        (4, [739, 499, 239, 0]),
        (8, [859, 739, 619, 499, 359, 239, 119, 0]),
    ],
)
def test_edges_of_phases_on_the_trained_ladder(phases, indices):
    """The released code's: index 20·⌊50m/M⌋ − 1, or 0; the starts of the four phases are 999,
    739, 499, 239.
    """
    times = grid(SD, 50, "sd_trailing")
    assert (pcm_edges(times, phases) * 1000 - 1).round(decimals=9).tolist() == indices


@pytest.mark.parametrize("n", [4, 7, 50])
def test_edges_are_times_of_the_grid_and_end_with_it(n):
    times = grid(vp(), n)
    for phases in range(1, n + 1):
        edges = pcm_edges(times, phases)
        assert (
            edges.shape == (phases,)
            and edges[-1] == times[-1]
            and set(edges.tolist()) <= set(times[1:].tolist())
        )
    assert torch.equal(edges, times[1:]), "as many phases as steps: every time is an edge"


@pytest.mark.parametrize("spacing", ["lam", "time", "karras"])
def test_ends_are_the_ones_asked_for(spacing):
    times = grid(vp(), 6, spacing, t_max=0.9, t_min=0.02)
    assert times[0] == 0.9 and times[-1] == 0.02


def test_default_clean_end():
    # σ(0) = 0: stop short of it
    assert grid(vp(), 3)[-1] == 1e-3 and grid(flow(), 3, "time")[-1] == 1e-3
    assert grid(edm(), 3)[-1] == 0.0 and grid(SD, 3)[-1] == 1e-3  # a clean end with σ > 0 is kept


@pytest.mark.parametrize("spacing, ends", [("lam", {}), ("time", {"t_max": 0.9, "t_min": 0.1})])
def test_levels_are_those_of_the_grid(spacing, ends):
    whole = levels(vp(), 6, spacing, **ends)
    assert whole == vp().levels(grid(vp(), 6, spacing, **ends))
    clean = levels(vp(), 6, spacing, end="clean", **ends)
    assert clean == [*whole[:-1], CLEAN] and clean[-1] is CLEAN, (
        "as many steps, the last to σ = 0"
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: levels(vp(), 4, end="zero"), "end = 'zero', wanted 'grid' .* or 'clean'"),
        (lambda: grid(vp(), 0), "n = 0 steps, wanted a whole number"),
        (lambda: grid(vp(), -3), "wanted a whole number"),
        (lambda: grid(vp(), 2.5), "n = 2.5 steps"),
        (lambda: grid(vp(), 4, "logsnr"), "unknown spacing 'logsnr'; choose one of lam, time"),
        (lambda: grid(vp(), 4, t_max=0.1, t_min=0.2), "is not above t_min"),
        (lambda: grid(flow(), 4), "α = 0.*use spacing='time' or t_max=0.999"),
        (lambda: grid(cosine(), 4, "karras"), "α = 0"),
        (lambda: grid(vp(), 4, t_min=0.0), "σ = 0.*end='clean'"),
        (lambda: grid(flow(), 4, "lcm", t_max=0.9), "lcm has fixed ends"),
        (lambda: grid(flow(), 1000, "sd_leading"), "1000 steps do not fit on a ladder of 1000"),
        (lambda: grid(SD, 51, "pcm"), "51 phases of a grid with 50 steps"),
        (
            lambda: grid(SD, 51, "lcm"),
            "51 steps, but latent consistency models are trained on 50 indices",
        ),
        (
            lambda: grid(discrete(scaled_linear(n=30)), 4, "lcm"),
            "wants a ladder of at least 50 indices, not 30",
        ),
        (
            lambda: pcm_edges(grid(vp(), 4), 0),
            "0 phases of a grid .*: wanted a whole number, 1 … 4",
        ),
        (lambda: pcm_edges(grid(vp(), 4), 2.0), "2.0 phases .* whole number"),
        (lambda: pcm_edges(grid(vp(), 4), 5), "5 phases of a grid with 4 steps"),
        (lambda: grid(SD, 4, "sd_leading", t_min=0.1), "has fixed ends"),
        (
            lambda: grid(SD, 1000, "sd_leading"),
            "1000 steps do not fit on a ladder of 1000 indices",
        ),
        (lambda: vp().levels(grid(vp(), 4, "time", t_max=1.5)), "time 1.5 is outside"),
        (lambda: vp().levels(grid(vp(), 4, "time", t_min=-0.5)), "time -0.5 is outside"),
        (lambda: grid(SD, 4, t_min=1e-4), "time 0.0001 is outside"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
