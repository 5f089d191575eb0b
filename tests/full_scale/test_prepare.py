"""Preparing data: every source gives the same rows, the models' numbers, and every bad row is
named.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import datafolders as data
import datasets
import numpy as np
import pytest
import torch

from full_scale import prepare
from full_scale.data import encoding
from full_scale import families
from full_scale.families import sd
from full_scale.data.rows import Rows

pytestmark = pytest.mark.usefixtures("preparing")


def by_caption(folder: Path) -> dict[str, torch.Tensor]:
    rows = Rows(folder)
    return dict(zip(rows.captions(range(len(rows))), rows[range(len(rows))].x0))


def test_latents_and_texts_are_what_the_models_say(whole, eps_pipe):
    """Against diffusers' own classes on pictures cut by hand: 80×64 to the 64 columns in the
    middle.
    """
    rows = Rows(whole[1])
    batch = rows[range(5)]
    x = np.stack([np.asarray(data.picture(seed))[:, 8:72] for seed in range(5)]).transpose(
        0, 3, 1, 2
    )
    with torch.no_grad():
        want = (
            eps_pipe.vae.encode(torch.from_numpy(x).float() / 255 * 2 - 1).latent_dist.mean
            * 0.18215
        )
    assert (
        batch.x0.shape == (5, 4, 8, 8) and (batch.x0 - want).abs().max() < 1e-5 * want.abs().max()
    )
    ids = eps_pipe.tokenizer(
        list(data.CAPTIONS.values()), padding="max_length", max_length=16, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        text = eps_pipe.text_encoder(ids).last_hidden_state
    assert (batch.cond["text"] - text).abs().max() < 1e-5 * text.abs().max()
    assert torch.equal(rows.null["text"], sd.StableDiffusion(eps_pipe).encode([""])["text"][0])
    assert rows.captions([3, 0]) == ["a blue square", "a cat"] and rows.table[:][
        "key"
    ].to_pylist() == list("abcde")
    assert (
        rows.info["shape"] == [4, 8, 8]
        and rows.info["family"]["scaling_factor"] == 0.18215
        and rows.info["counts"]["kept"] == 5
    )
    assert rows.info["versions"]["datasets"] == datasets.__version__ and rows.info["shards"] == 3
    # a shard is a dataset of its own
    assert len(datasets.load_from_disk(str(whole[1] / "shard-00001"))) == 2


def from_hub(path: Path):
    return "someone/pictures"


@pytest.mark.parametrize(
    "make", [data.imagefolder, data.saved, data.parquet, data.tars, from_hub]
)
def test_every_source_gives_the_same_rows(make, whole, tmp_path, monkeypatch):
    """Equal to rounding: rows share batches with other neighbours when their order differs."""
    if make is from_hub:
        monkeypatch.setattr(datasets, "load_dataset", lambda name, split: data.table("prompt"))
    got, want = (
        by_caption(data.prepared(make(tmp_path / "source"), tmp_path / "out")),
        by_caption(whole[1]),
    )
    assert got.keys() == want.keys() and all(
        (got[text] - want[text]).abs().max() < 1e-5 * want[text].abs().max() for text in want
    )
    assert json.loads((tmp_path / "out" / "report.json").read_text())["bad"] == 0


def test_tars_as_a_list_a_pattern_and_a_folder(tmp_path):
    data.tars(tmp_path / "t")
    ways = [("t/00.tar", "t/01.tar"), ("t/*.tar",), ("t",)]
    made = [data.contents(data.prepared(way, tmp_path / f"out{k}")) for k, way in enumerate(ways)]
    for each in made[1:]:
        differ = {name for name in made[0].keys() | each.keys() if made[0][name] != each[name]}
        assert differ == {"info.json", "manifest.json"}  # which say what was given


def test_local_sources_ask_no_network(tmp_path, monkeypatch):
    import socket

    def refuse(*given):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for k, make in enumerate((data.parquet, data.saved)):
        data.prepared(make(tmp_path / f"source{k}"), tmp_path / f"out{k}")


def test_prompts_alone(tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n\na bowl\r\n  a dog \n")
    rows = Rows(data.prepared("prompts.txt", tmp_path / "out"))
    assert rows.captions([0, 1, 2]) == ["a cat", "a bowl", "a dog"] and not rows.pictures
    batch = rows[[2, 0]]
    assert (
        batch.x0.shape == (2, 4, 8, 8)
        and batch.x0.isnan().all()
        and batch.cond["text"].shape == (2, 16, 32)
    )
    assert (
        "empty caption (1):\n    000000002  [line 2]"
        in (tmp_path / "out" / "report.txt").read_text()
    )


def test_integers_stay_integers(tmp_path, family, monkeypatch):
    """A family whose condition is tokens, as toys have."""

    class Tokens(families.StableDiffusion):
        def encode_texts(self, texts):
            return {"tokens": torch.tensor([[len(text), 70000] for text in texts])}

    monkeypatch.setattr(prepare, "open_family", lambda *given: Tokens(family.pipe))
    cond = Rows(data.prepared(data.beside(tmp_path / "p"), tmp_path / "out", store="float16"))[
        [1, 0]
    ].cond["tokens"]
    assert cond.dtype == torch.int64 and cond.tolist() == [[12, 70000], [5, 70000]]


def test_bad_rows_of_a_folder_are_counted_and_named(tmp_path):
    config = prepare.Config(
        source=(str(data.spoiled(tmp_path / "p")),),
        out=tmp_path / "out",
        tiny=True,
        size=64,
        batch=2,
    )
    said = prepare.run(config)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {row["key"]: row["reason"] for row in report["bad_rows"]} == {
        "dup": "duplicate key",
        "x0": "picture does not decode",
        "x1": "picture does not decode",
        "x2": "no caption",
        "x3": "empty caption",
        "x4": "caption does not read as UTF-8",
        "x5": "no picture",
    }
    assert (report["read"], report["kept"], report["bad"]) == (14, 7, 7) and len(
        Rows(config.out)
    ) == 7
    assert report["truncated_keys"] == ["long"] and report["enlarged_keys"] == ["c"]
    text = (tmp_path / "out" / "report.txt").read_text()
    assert (
        all(f"    {row['key']}  [{row['where']}]" in text for row in report["bad_rows"])
        and "\n    long\n" in text
    )
    assert (
        "BAD ROWS: 7 of 14" in said
        and "2 × picture does not decode" in said
        and "out/report.txt" in said
    )
    assert "1 captions are longer" in said and "1 pictures were smaller" in said
    written = (tmp_path / "out" / "info.json").stat().st_mtime_ns
    assert prepare.run(config) == said  # complete: says so again, does nothing
    assert (tmp_path / "out" / "info.json").stat().st_mtime_ns == written


def test_bad_rows_of_metadata(tmp_path):
    path = data.imagefolder(tmp_path / "p")
    lines = (path / "metadata.jsonl").read_text().splitlines()
    (path / "metadata.jsonl").write_text(
        "\n".join(
            [
                *lines[:4],
                lines[0],
                '{"file_name": "train/gone.png", "text": "x"}',
                "{no json",
                '{"text": "nameless"}',
            ]
        )
    )
    # e is no longer named: its picture has no caption
    with pytest.raises(ValueError, match="5 of 9 rows are bad"):
        data.prepared(path, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(row["key"], row["reason"]) for row in report["bad_rows"]] == [
        ("train/a.png", "duplicate key"),
        ("train/gone.png", "no picture"),
        ("metadata.jsonl line 7", "broken source"),
        ("metadata.jsonl line 8", "broken source"),
        ("train/e.png", "no caption"),
    ]


def test_bad_rows_of_tars(tmp_path):
    good = data.png(data.picture(0))
    (tmp_path / "t").mkdir()
    data.tar(
        tmp_path / "t" / "a.tar",
        [
            ("1.png", good),
            ("1.txt", b"one"),
            ("2.png", b"rubbish"),
            ("2.txt", b"two"),
            ("3.txt", b"three"),
            ("4.png", good),
            ("5.png", good),
            ("5.png", good),
            ("5.txt", b"five"),
            ("6.png", good),
            ("6.json", b"[]"),
        ],
    )
    data.tar(
        tmp_path / "t" / "b.tar",
        [("1.png", good), ("1.txt", b"again")]
        + [
            (f"{k}.{end}", value)
            for k in range(7, 12)
            for end, value in (("png", good), ("txt", b"x"))
        ],
    )
    os.truncate(tmp_path / "t" / "b.tar", (tmp_path / "t" / "b.tar").stat().st_size // 2)
    (tmp_path / "t" / "c.tar").write_bytes(b"no tar at all")
    with pytest.raises(ValueError, match="rows are bad"):
        data.prepared("t", tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    named = {
        (row["key"], row["where"].split(":")[0]): row["reason"] for row in report["bad_rows"]
    }
    assert (
        named.items()
        >= {
            ("a/2", "a.tar"): "picture does not decode",
            ("a/3", "a.tar"): "no picture",
            ("a/4", "a.tar"): "no caption",
            ("a/6", "a.tar"): "no caption",
            ("a.tar#0", "a.tar"): "broken source",
            ("b.tar#0", "b.tar"): "broken source",
            ("c.tar#0", "c.tar"): "broken source",
        }.items()
    )
    details = {row["key"]: row["detail"] for row in report["bad_rows"]}
    assert (
        "5.png: duplicate file name" in details["a.tar#0"]
        and "unexpected end of data" in details["b.tar#0"]
    )


def test_bad_rows_of_a_dataset(tmp_path):
    images = [
        {"bytes": data.png(data.picture(0)), "path": None},
        None,
        {"bytes": b"rubbish", "path": None},
        {"bytes": data.png(data.picture(1)), "path": None},
    ]
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "captions": datasets.List(datasets.Value("string")),
            "url": datasets.Value("string"),
        }
    )
    table = datasets.Dataset.from_dict(
        {
            "picture": images * 2,
            "captions": [["a", "b"], ["c"], ["d"], []] + [["e"]] * 4,
            "url": [""] * 8,
        },
        features=features,
    )
    datasets.DatasetDict(train=table, test=table).save_to_disk(tmp_path / "d")
    with pytest.raises(
        ValueError, match="no column of captions.*pass --caption-column, one of captions, url"
    ):
        data.prepared("d", tmp_path / "out")
    with pytest.raises(ValueError, match="5 of 8 rows are bad"):
        data.prepared("d", tmp_path / "out", caption_column="captions")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [(row["where"], row["reason"]) for row in report["bad_rows"]] == [
        ("row 1", "no picture"),
        ("row 2", "picture does not decode"),
        ("row 3", "no caption"),
        ("row 5", "no picture"),
        ("row 6", "picture does not decode"),
    ]
    assert not (tmp_path / "out" / "info.json").exists()


def test_nothing_good_is_an_error_that_names_the_first(tmp_path):
    (tmp_path / "p").mkdir()
    data.picture(0).save(tmp_path / "p" / "x.png")
    with pytest.raises(
        ValueError,
        match=r"1 of 1 rows are bad \(1 × no caption\); the first: x \[x.png\] no caption.*put "
        r"the source right, delete .*out",
    ):
        data.prepared("p", tmp_path / "out")
    with pytest.raises(ValueError, match="not finished"):
        Rows(tmp_path / "out")


def test_half_precision_is_asked_for_and_overflow_is_a_bad_row(
    whole, tmp_path, family, monkeypatch
):
    out = data.prepared(whole[0], tmp_path / "half", store="float16")
    x0 = Rows(whole[1])[range(5)].x0
    # float16 rounds to 11 bits
    assert 0 < (Rows(out)[range(5)].x0 - x0).abs().max() < 1e-3 * x0.abs().max()
    assert (
        Rows(out)[[0]].x0.dtype == torch.float32
        and "float16" in (out / "shard-00000" / "dataset_info.json").read_text()
    )
    assert [
        prepare.Config(source=(), out=out, **given).numbers
        for given in ({"tiny": True}, {"weights": "w"})
    ] == ["float32", "float16"]

    monkeypatch.setattr(prepare, "open_family", lambda *given: Loud(family.pipe))
    report = json.loads(
        (
            data.prepared(whole[0], tmp_path / "loud", store="float16", batch=1) / "report.json"
        ).read_text()
    )
    assert [(row["key"], row["reason"]) for row in report["bad_rows"]] == [
        ("a", "not finite")
    ] and report["kept"] == 4


class Loud(families.StableDiffusion):
    """Its latent of picture 0 overflows half precision."""

    def encode_pictures(self, images, size):
        first = np.array_equal(np.asarray(images[0]), np.asarray(data.picture(0))[:, 8:72])
        return super().encode_pictures(images, size) * (1e7 if first else 1)


def test_a_key_whose_first_row_was_bad_is_not_a_duplicate(tmp_path, family, monkeypatch):
    """So that a run that resumes, and knows the kept rows only, decides as the unbroken one
    does.
    """
    monkeypatch.setattr(prepare, "open_family", lambda *given: Loud(family.pipe))
    (tmp_path / "t").mkdir()
    members = [
        (f"{key}.{end}", value)
        for key, seed in (("1", 0), ("2", 1), ("1", 2), ("2", 3))
        for end, value in (("png", data.png(data.picture(seed))), ("txt", str(seed).encode()))
    ]
    out = data.prepared(
        data.tar(tmp_path / "t" / "a.tar", members), tmp_path / "out", store="float16", batch=1
    )
    assert [
        row["reason"] for row in json.loads((out / "report.json").read_text())["bad_rows"]
    ] == ["not finite", "duplicate key"]
    assert Rows(out).captions([0, 1]) == ["1", "2"]


def test_reading_ahead_is_bounded_and_keeps_order():
    pulled = []

    def items():
        for k in range(50):
            pulled.append(k)
            yield k

    stream = encoding.ahead(lambda k: k * k, items(), depth=4)
    assert [next(stream) for _ in range(3)] == [0, 1, 4] and len(pulled) <= 3 + 4 + 1
    assert list(stream) == [k * k for k in range(3, 50)]
