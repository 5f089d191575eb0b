"""Rows of prepared data: the right ones in the right order, the same after any restart, and
refusals that say what to do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datafolders as data
import numpy as np
import pytest
import torch

from dlib import Draw
from dlib.losses import Batch, drop
from full_scale import families
from full_scale.data.draws import step_draws
from full_scale.data.rows import Rows, indices, order
from full_scale.families.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def folder(whole):
    return whole[1]


@pytest.fixture
def texts(preparing, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {k}" for k in range(4)))
    return data.prepared(tmp_path / "prompts.txt", tmp_path / "texts")


def test_a_gather_is_the_rows_asked_for(folder):
    rows = Rows(folder)
    everything, some = rows[range(5)], rows[[4, 0, 4]]
    assert (
        isinstance(some, Batch)
        and some.x0.dtype == torch.float32
        and some.x0.device.type == "cpu"
    )
    assert torch.equal(some.x0, everything.x0[[4, 0, 4]]) and torch.equal(
        some.cond["text"], everything.cond["text"][[4, 0, 4]]
    )
    assert not torch.equal(everything.x0[0], everything.x0[1])
    some.x0.zero_()  # a batch is the caller's own: the file stays
    assert torch.equal(rows[[4]].x0[0], everything.x0[4])


def test_rows_are_mapped_not_read(folder):
    import pyarrow as pa

    before = pa.total_allocated_bytes()
    rows = Rows(folder)
    assert pa.total_allocated_bytes() - before < 1000 and rows.table.data.nbytes > 5000


@pytest.mark.parametrize("wrong", [[], [5], [-1]])
def test_indices_out_of_range(folder, wrong):
    with pytest.raises(ValueError, match="wanted 0 … 4, at least one"):
        Rows(folder)[wrong]


def test_order_is_a_permutation_that_differs_by_epoch_and_seed():
    for n in (1, 2, 7, 1000):
        assert np.array_equal(np.sort(order(3, 1, n)), np.arange(n))
    first = order(0, 0, 1000)
    assert all(
        (first == other).mean() < 0.02
        for other in (order(0, 1, 1000), order(1, 0, 1000), np.arange(1000))
    )
    corr = np.corrcoef(first, order(0, 1, 1000))[0, 1]
    assert abs(corr) < 4 / 1000**0.5


def test_order_is_the_same_for_ever():
    """Written down once: a run that is resumed with a newer numpy must see the same rows."""
    assert order(0, 0, 8).tolist() == [0, 4, 5, 1, 3, 2, 6, 7]


@pytest.mark.parametrize("batch, n", [(1, 5), (4, 5), (5, 5), (3, 7), (8, 8), (2, 6)])
def test_steps_walk_all_epochs_without_gap(batch, n):
    """Every row once an epoch, nothing dropped, whatever the batch: the steps laid end to end
    are the orders laid end to end.
    """
    steps = 3 * n
    seen = [row for step in range(steps) for row in indices(7, step, batch, n)]
    want = np.concatenate([order(7, epoch, n) for epoch in range(3 * batch)])
    assert seen == want.tolist()


def test_a_step_needs_no_history_and_spans_epochs():
    late = indices(5, 10**7, 4, 6)
    assert late == indices(5, 10**7, 4, 6) and all(
        isinstance(row, int) and 0 <= row < 6 for row in late
    )
    epoch, place = divmod(4 * 10**7, 6)
    assert place + 4 > 6 and late == [
        *order(5, epoch, 6)[place:],
        *order(5, epoch + 1, 6)[: place + 4 - 6],
    ]


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="a global batch of 6 from 5 rows"):
        indices(0, 0, 6, 5)


def test_drop_replaces_whole_samples_and_nothing_else():
    cond = {"text": torch.randn(64, 3, 2), "tokens": torch.arange(64)[:, None].expand(64, 4)}
    null = {"text": torch.full((3, 2), 9.0), "tokens": torch.full((4,), -1)}
    before = {name: value.clone() for name, value in cond.items()}
    gone = Draw(1).uniform(64) < 0.25
    got = drop(cond, null, 0.25, Draw(1))
    assert 5 < gone.sum() < 30 and all(torch.equal(cond[name], before[name]) for name in cond)
    for name in cond:
        assert (
            (got[name][gone] == null[name]).all()
            and torch.equal(got[name][~gone], cond[name][~gone])
            and got[name].dtype == cond[name].dtype
        )
    assert torch.equal(drop(cond["text"], null["text"], 0.25, Draw(1)), got["text"])


def test_drop_has_the_asked_probability_and_always_draws_once():
    """4 standard errors of 20000 draws; then the next number is the same whatever p was."""
    rate = (drop(torch.zeros(20000), 1.0, 0.1, Draw(0)) == 1).float().mean().item()
    assert abs(rate - 0.1) < 4 * (0.1 * 0.9 / 20000) ** 0.5
    after = []
    for p in (0.0, 0.5, 1.0):
        draw = Draw(3)
        drop(torch.zeros(5), 1.0, p, draw)
        after.append(draw.uniform(1).item())
    assert len(set(after)) == 1


def test_drop_does_not_depend_on_how_a_batch_is_cut():
    cond = torch.arange(8)
    whole = drop(cond, -1, 0.5, step_draws(0, 3, range(8)))
    parts = [drop(cond[i : i + 4], -1, 0.5, step_draws(0, 3, range(i, i + 4))) for i in (0, 4)]
    assert torch.equal(whole, torch.cat(parts)) and 0 < (whole == -1).sum() < 8


@pytest.mark.parametrize(
    "cond, null, match",
    [
        (torch.zeros(3, 2), torch.zeros(1, 2), "pass null without a batch axis"),
        (
            {"text": torch.zeros(3)},
            {"other": torch.zeros(())},
            r"cond has keys \['text'\], null has \['other'\]",
        ),
        ({"text": torch.zeros(3)}, -1, "null has int"),
    ],
)
def test_drop_refuses_what_does_not_match(cond, null, match):
    with pytest.raises(ValueError, match=match):
        drop(cond, null, 0.5, Draw(0))
    with pytest.raises(ValueError, match="p = 2 is not a probability"):
        drop(torch.zeros(2), 0, 2.0, Draw(0))


class TestCheck:
    def test_good_data_pass(self, folder, texts, family):
        Rows(folder).check(family, 5)
        Rows(texts, "texts").check(family, 4)

    def test_the_same_model_in_bfloat16_passes(self, folder):
        pipe = tiny_pipeline()
        pipe.text_encoder.bfloat16()
        Rows(folder).check(families.StableDiffusion(pipe), 5)

    def test_another_family_is_named_entry_by_entry(self, folder, family):
        class Other(families.StableDiffusion):
            identity = {**family.identity, "text": [77, 768], "scaling_factor": 0.13025}

        with pytest.raises(
            ValueError,
            match=r"another model family \(scaling_factor: 0.18215 in the data, 0.13025 in the "
            r"model; text: \[16, 32\] in the data, "
            r"\[77, 768\] in the model\).*python -m full_scale.prepare .*--out .*out-2",
        ):
            Rows(folder).check(Other(family.pipe), 1)

    def test_another_kind_of_model_is_one_sentence(self, folder, family):
        with pytest.raises(
            ValueError,
            match="prepared for the family sd, and the model is of the family shapes: pass "
            "--family sd, or prepare them anew with "
            "--family shapes and another --out$",
        ):
            Rows(folder).check(families.open_family("shapes", None, torch.device("cpu")), 1)

    def test_other_weights_of_the_same_shape_are_found(self, folder):
        pipe = tiny_pipeline()
        torch.manual_seed(1)
        for parameter in pipe.text_encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        with pytest.raises(ValueError, match="another text encoder of the same shape"):
            Rows(folder).check(families.StableDiffusion(pipe), 1)

    def test_they_are_found_where_the_empty_text_is_zeros_whatever_the_encoder(self, folder):
        class Zeros(families.StableDiffusion):
            def null(self, text=""):
                found = super().null(text)
                return found if text else {"text": torch.zeros_like(found["text"])}

        rows, pipe = Rows(folder), tiny_pipeline()
        rows.null = Zeros(pipe).null()
        rows.check(Zeros(pipe), 1)
        torch.manual_seed(1)
        for parameter in pipe.text_encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        with pytest.raises(ValueError, match="its embedding of the caption 'a cat' is at"):
            rows.check(Zeros(pipe), 1)

    def test_fewer_rows_than_a_global_batch(self, folder, family):
        with pytest.raises(
            ValueError,
            match="have 5 rows, fewer than one global batch of 6: pass --batch 5 or less, or "
            "prepare more rows",
        ):
            Rows(folder).check(family, 6)

    def test_texts_alone_do_not_serve_a_method_with_pictures(self, texts, family):
        with pytest.raises(ValueError, match="hold texts alone, .* trains on pictures"):
            Rows(texts, "pictures").check(family, 1)


class TestBroken:
    @pytest.fixture
    def copy(self, folder, tmp_path):
        return Path(shutil.copytree(folder, tmp_path / "copy"))

    def test_missing_foreign_and_unfinished(self, copy, tmp_path):
        with pytest.raises(
            ValueError,
            match="nowhere: no such folder. To make it: python -m full_scale.prepare --source "
            ".* --out .*nowhere",
        ):
            Rows(tmp_path / "nowhere")
        with pytest.raises(ValueError, match="not prepared data. To make some: python"):
            Rows(tmp_path)
        (copy / "info.json").unlink()
        with pytest.raises(
            ValueError, match="not finished: run the same full_scale.prepare command again"
        ):
            Rows(copy)

    def test_info_is_json_a_person_can_read(self, copy):
        info = json.loads((copy / "info.json").read_text())
        assert info["latents"] == "mean of the VAE's posterior times its scaling factor" and info[
            "given"
        ][0].endswith("pictures")
