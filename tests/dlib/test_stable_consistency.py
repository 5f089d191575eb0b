"""The recipe of stable consistency tuning: whose references a step has, and where its phases
end.
"""

from dataclasses import replace

import pytest
import torch
from truth import appendix_a

from dlib import Batch, Cast, Denoiser, Draw, Roles, boundary, discrete, edm, edm_boundary
from dlib import exact, grid, scaled_linear
from dlib.losses import consistency_training, ect_times, inverse_step, ladder_times, norm_huber
from dlib.losses import own
from dlib.losses.curricula import ct_points, ect_end, ect_stage, smooth_stage
from dlib.losses.variance_reduction import reduced
from dlib.nets import MLP
from dlib.recipes import ct
from dlib.recipes.stable_consistency import ct_reduced, sct, skipped
from dlib.training.performing import Trained, Trainer

X0, LABEL = appendix_a().sample(8, Draw(0))
X0 = X0.float()
SCHEDULE = edm()


class Rows(Draw):
    """One stream for each row, as in the engine: a row's numbers depend on the row alone."""

    def __init__(self, rows):
        self.rows = [Draw(100 + row) for row in rows]

    def normal(self, like, dtype=None):
        rows = like if isinstance(like, torch.Tensor) else torch.empty(like)
        return torch.stack([draw.normal(row, dtype) for draw, row in zip(self.rows, rows)])

    def integers(self, high, n):
        return torch.cat([draw.integers(high, 1) for draw in self.rows])


def gradient(recipe, cuts, label=LABEL):
    """Of the student's weights at a first step that is cut into micro-batches of these rows."""
    torch.manual_seed(0)
    model = Denoiser(MLP(2, 16, 1, classes=3), SCHEDULE, "v")
    torch.nn.init.normal_(model.net.leave.weight)
    optim = torch.optim.SGD(model.net.parameters(), lr=0.0)
    roles = Roles(student=model, target=model)
    trainer = Trainer(recipe, Cast(roles), {"student": Trained(optim)})
    trainer.advance([(Batch(X0[rows], label[rows]), Rows(rows)) for rows in cuts], 0)
    return torch.cat([weight.grad.flatten() for weight in model.net.parameters()])


@pytest.mark.parametrize(
    "recipe", [sct(SCHEDULE, -1), ct_reduced(SCHEDULE, -1, points=(9, 9), group=6)]
)
def test_a_step_does_not_depend_on_how_it_is_cut(recipe):
    """Also where a group has rows of both micro-batches."""
    every = list(range(8))
    whole = gradient(recipe, [every])
    assert torch.allclose(gradient(recipe, [every[:4], every[4:]]), whole, rtol=1e-5, atol=1e-6)

    def alone(memos, gather):  # the references of a micro-batch only
        return [recipe.pool([memo], gather)[0] for memo in memos]

    apart = gradient(replace(recipe, pool=alone), [every[:4], every[4:]])
    assert (apart - whole).norm() > 0.01 * whole.norm()


def test_the_effective_number_of_references_is_logged():
    """One where each row has a condition of its own; else the mean of 1/Σw²."""
    model = Denoiser(lambda x, t, cond: 0 * x, SCHEDULE, "x0")
    recipe = sct(SCHEDULE, -1, every=100)

    def logged(label):
        batch, whole = Batch(X0, label, step=150, memo={}), lambda rows: (rows, slice(0, 8))
        batch.memo.update(recipe.pool([recipe.before({}, batch, Draw(1))], whole)[0])
        loss = recipe.phases[0].loss({"student": model, "target": model}, batch, Draw(1))
        return loss.metrics["references"]

    assert logged(torch.arange(8)) == 1
    t, _ = ect_times(SCHEDULE, stage=1.5)(draw := Draw(1), 8)
    level = SCHEDULE.at(t.double(), like=X0)
    x = level.alpha * X0 + level.sigma * draw.normal(X0)
    far = (x[:, None] - level.alpha[:, None] * X0).square().sum(2) / (2 * level.sigma**2)
    weights = torch.softmax(-far.double(), 1)
    wanted = (1 / weights.square().sum(1)).mean()
    assert torch.allclose(logged(torch.zeros(8)), wanted, rtol=1e-5, atol=0) and wanted > 1.1


def test_with_a_condition_of_its_own_in_each_row_it_is_consistency_training():
    """ECT's loss, bit for bit, and the same gradient."""
    label = torch.tensor([0, 1, 2])
    batch, model = Batch(X0[:3], step=150), exact(appendix_a(), SCHEDULE)
    recipe = sct(SCHEDULE, -1, every=100)

    def value(label):
        one = replace(batch, cond=label, memo={})
        one.memo.update(recipe.pool([recipe.before({}, one, Draw(1))], whole)[0])
        return recipe.phases[0].loss({"student": model, "target": model}, one, Draw(1)).value

    whole = lambda rows: (rows, slice(0, len(rows)))
    drawn = ect_times(SCHEDULE, stage=1.5)
    plain = consistency_training(
        model,
        model,
        replace(batch, cond=label),
        Draw(1),
        times=drawn,
        estimate=own,
        weight=inverse_step,
        distance=norm_huber(0.0),
    )
    assert torch.equal(value(label), plain.value)
    assert (
        abs(value(torch.tensor([0, 1, -1])) / plain.value - 1) > 1e-4
    )  # ∅ has all as references


def test_without_conditions_all_rows_are_references():
    recipe = sct(SCHEDULE)
    memos = [recipe.before({}, Batch(X0[k : k + 4]), Draw(0)) for k in (0, 4)]
    found = recipe.pool(memos, lambda rows: (rows, slice(0, len(rows))))
    assert all(torch.equal(memo["references"], X0) and memo["shared"].all() for memo in found)
    assert [len(memo["shared"]) for memo in found] == [4, 4]


def test_on_the_ladder_a_row_s_references_are_those_of_its_group_that_share_its_condition():
    """Its loss is CT's towards their mean, and CT's own in groups of one, bit for bit; a row
    without a caption has its whole group; rows of another process count, in the order of the
    step.
    """
    model, whole = exact(appendix_a(), SCHEDULE), lambda rows: (rows, slice(0, len(rows)))
    how = dict(points=(4, 20), growth=100, spacing="arctan", sigma_data=0.8)
    late = Denoiser(lambda x, t, cond: torch.cos(x), SCHEDULE, "v")
    seen = LABEL.index_fill(0, torch.tensor([1, 4]), -1)

    def value(recipe):
        batch = Batch(X0, seen, step=50, memo={})
        if recipe.before:
            memo = recipe.before({}, batch, Draw(3))
            batch.memo.update(recipe.pool([memo], whole)[0])
        return recipe.phases[0].loss({"student": model, "target": late}, batch, Draw(3)).value

    plain = value(ct(SCHEDULE, **how))
    assert torch.equal(value(ct_reduced(SCHEDULE, -1, group=1, **how)), plain)
    own, known = (
        torch.tensor([[k // 3 == n // 3 and a in (b, -1) for n, b in enumerate(kinds.tolist())]
                      for k, a in enumerate(kinds.tolist())])
        for kinds in (LABEL, seen)
    )  # fmt: skip
    times = grid(SCHEDULE, ct_points(50, 100, 4, 20) - 1, "arctan")
    scalings = edm_boundary(SCHEDULE, times[-1].item(), 0.8)
    by_hand = consistency_training(
        boundary(model, scalings), boundary(late, scalings),
        Batch(X0, seen, memo={"references": X0, "shared": known}), Draw(3),
        times=ladder_times(times), estimate=reduced,
    ).value  # fmt: skip
    found = value(ct_reduced(SCHEDULE, -1, group=3, **how))
    assert torch.allclose(found, by_hand, rtol=1e-6, atol=0) and abs(found / plain - 1) > 1e-3
    recipe = ct_reduced(SCHEDULE, -1, group=3)
    half = lambda rows: (
        torch.cat([X0[:4] if rows.ndim > 1 else LABEL[:4] + 1, rows]),
        slice(4, 8),
    )
    memo = recipe.before({}, Batch(X0[4:], LABEL[4:]), Draw(0))
    marked = {"references": memo["references"], "mark": LABEL[4:] + 1}
    assert torch.equal(recipe.pool([marked], half)[0]["shared"], own[4:])


def test_phases_end_at_their_edges_and_the_sampler_skips_past_them():
    ladder = discrete(scaled_linear())
    plain, skips = (sct(ladder, phases=4, eta=eta).sampler for eta in (1.0, 0.8))
    indices = lambda sampler: [round(1000 * t - 1) for t in sampler.times]
    assert indices(plain) == [999, 739, 499, 239, 0] and plain.solver == skips.solver == "ddim"
    assert all(a < b for a, b in zip(indices(skips)[1:-1], indices(plain)[1:-1]))
    kappa = lambda t: ladder.at(t).sigma / ladder.at(t).alpha
    ratios = [kappa(a) / kappa(b) for a, b in zip(skips.times[1:-1], plain.times[1:-1])]
    assert ratios == pytest.approx([0.8] * 3, rel=0.01)  # to the nearest index
    assert skipped(SCHEDULE, 0.5, 1.0) == pytest.approx(0.5, abs=1e-9)
    model = exact(appendix_a(), ladder)
    batch = Batch(X0.double(), memo={"references": X0.double(), "shared": None})
    loss = sct(ladder, phases=4).phases[0].loss
    assert torch.isfinite(loss({"student": model, "target": model}, batch, Draw(0)).value)


def test_the_smooth_schedule_passes_through_the_stages_of_ect():
    kappa = torch.tensor([0.5, 5.0], dtype=torch.float64)
    for step in (0, 100, 200):
        smooth, stairs = (ect_end(kappa, stage(step, 100)) for stage in (smooth_stage, ect_stage))
        assert torch.equal(smooth, stairs)
    gaps = [(kappa - ect_end(kappa, smooth_stage(step, 100)))[1] for step in range(0, 400, 25)]
    ratios = [after / before for before, after in zip(gaps, gaps[1:])]
    assert ratios == pytest.approx([2**-0.25] * 15, rel=1e-12)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"eta": 0.0}, "above 0"),
        ({"eta": 1.5}, "at most 1"),
        ({"phases": 0}, "wanted a whole number, 1 … 50"),
        ({"phases": 2.5}, "2.5 phases"),
        ({"phases": 99}, "50 steps"),
        ({"every": 0}, "sct: every = 0, wanted at least 1"),
        ({"stages": 0}, "sct: stages = 0, wanted at least 1"),
        ({"stages": 0.5}, "sct: stages = 0.5"),
        ({"huber_c": -1.0}, "at least 0"),
    ],
)
def test_bad_input_is_named_when_the_recipe_is_made(how, says):
    with pytest.raises(ValueError, match=says):
        sct(SCHEDULE, **how)


@pytest.mark.parametrize("eta", [0.0, -0.5, 1.5])
def test_a_share_of_an_edge_and_a_step_are_checked(eta):
    with pytest.raises(ValueError, match=f"skipped: eta = {eta:g}, wanted a share of κ"):
        skipped(SCHEDULE, 0.5, eta)
    with pytest.raises(ValueError, match="a step ≥ 0"):
        smooth_stage(-1, 10)
