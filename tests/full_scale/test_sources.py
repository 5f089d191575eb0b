"""The rules of a row, in every source: which picture, which caption, what a null is, what a
file's bytes mean; a bad row is one line of the report.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
from pathlib import Path

import datafolders as data
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pictures16 import COLOUR, GREY, png16, pnm16, tiff

from full_scale import prepare
from full_scale.data.encoding import examine
from full_scale.data.rows import Rows
from full_scale.sources.captions import NoCaption, read_caption
from full_scale.sources.choose import open_source
from full_scale.sources.pictures import decoded
from full_scale.sources.tables import Columns

PNG = data.png(data.picture(0, 16, 16))


def read(*names, caption: str | None = None) -> dict[str, str]:
    """Key ↦ the caption of a good row, or the reason of a bad one in brackets."""
    source = open_source([str(name) for name in names], Columns(caption=caption))
    found = [examine(row, 16, source.pictures) for row in source.rows(0)]
    assert len({one.row.key for one in found}) == len(found)
    return {one.row.key: f"[{one.fault[0]}]" if one.fault else one.caption for one in found}


def write(path: Path, files: dict[str, bytes | str]) -> Path:
    for name, value in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(value if isinstance(value, bytes) else value.encode())
    return path


FIELDS = {
    "mark": ({"text": ["\ufeffa cat"]}, "a cat"),
    "null": ({"text": None, "caption": ["a dog"]}, "a dog"),
    "first": ({"text": ["", "one", "two"], "caption": ["no"]}, "one"),
    "txt": ({"txt": ["a bird"]}, "a bird"),
    "lines": ({"prompt": ["a\nb"]}, "a\nb"),
    "empty": ({"text": [], "caption": None}, "[no caption]"),
    "blank": ({"text": [" \ufeff"]}, "[empty caption]"),
}
"""Fields in arrow's types, and what must come of them in every source."""
LOOSE = {
    "half": ({"text": "half \ud83d"}, "[caption cannot be written as UTF-8]"),
    "whole": ({"text": "\ud83d\ude00"}, "\U0001f600"),
    "nan": ({"text": float("nan"), "prompt": "a fox"}, "a fox"),
    "number": ({"text": 5}, "[no caption]"),
    "nested": ({"text": {"raw": "x"}}, "[no caption]"),
}
"""The same that JSON alone can hold."""
NAMED = {
    "other": ({"text": "no", "description": "a cat"}, "a cat"),
    "null": ({"text": "no", "description": None}, "[no caption]"),
    "blank": ({"text": "no", "description": ""}, "[empty caption]"),
}
"""What must come of fields where the caption's is said to be `description`."""


def rows_of(fields: dict) -> list[dict]:
    names = ("text", "caption", "prompt", "txt", "description")
    return [{name: row.get(name) for name in names} for row, _ in fields.values()]


def jsonl(path, fields, loose):
    cases = fields | loose
    write(path, {f"train/{key}.png": PNG for key in cases})
    lines = [json.dumps({"file_name": f"{key}.png"} | row) for key, (row, _) in cases.items()]
    write(path, {"train/metadata.jsonl": b"\xef\xbb\xbf" + "\n".join(lines).encode()})
    return path, {f"train/{key}.png": want for key, (_, want) in cases.items()}


def parquet_index(path, fields, loose):
    write(path, {f"{key}.png": PNG for key in fields})
    names = [{"file_name": f"{key}.png"} for key in fields]
    rows = [name | row for name, row in zip(names, rows_of(fields))]
    pq.write_table(pa.Table.from_pylist(rows), path / "metadata.parquet")
    return path, {f"{key}.png": want for key, (_, want) in fields.items()}


def comma_separated(path, fields, loose):
    """Which has no null, and no lists."""
    lines = [f"{key}.png,no,{row['description'] or ''}" for key, (row, _) in fields.items()]
    write(path, {f"{key}.png": PNG for key in fields})
    write(path, {"metadata.csv": "\n".join(["file_name,text,description", *lines])})
    told = {key: want for key, (_, want) in fields.items()} | {"null": "[empty caption]"}
    return path, {f"{key}.png": want for key, want in told.items()}


def kohya(path, fields, loose):
    write(path, {f"{key}.png": PNG for key in fields})
    write(path, {"meta_cap.json": json.dumps({key: row for key, (row, _) in fields.items()})})
    return path, {key: want for key, (_, want) in fields.items()}


def json_beside(path, fields, loose):
    """As img2dataset writes files."""
    cases = fields | loose
    write(path, {f"0/{key}.png": PNG for key in cases})
    write(path, {f"0/{key}.json": json.dumps(row) for key, (row, _) in cases.items()})
    return path, {f"0/{key}": want for key, (_, want) in cases.items()}


def json_in_tars(path, fields, loose):
    cases, members = fields | loose, []
    for key, (row, _) in cases.items():
        # img2dataset writes an empty txt for a null
        members += [(f"{key}.png", PNG), (f"{key}.json", json.dumps(row).encode())]
        members += [(f"{key}.txt", b"")] if key in ("null", "empty") else []
    data.tar(write(path, {"x": b""}) / "0.tar", members)
    (path / "x").unlink()
    told = {key: want for key, (_, want) in cases.items()}
    told |= {"empty": "[empty caption]"} if "empty" in told else {}
    return path, {f"0/{key}": want for key, want in told.items()}


def table(path, fields, loose):
    """As img2dataset writes parquet: bytes in a column that is called after their kind."""
    rows = [row | {"key": key, "jpg": PNG} for key, row in zip(fields, rows_of(fields))]
    pq.write_table(pa.Table.from_pylist(rows), write(path, {"x": b""}) / "0.parquet")
    return path, {f"{n:09d}": want for n, (_, want) in enumerate(fields.values())}


def votes_in_a_table(path, fields, loose):
    other = data.png(data.picture(1, 16, 16))
    pair = {"jpg_0": PNG, "jpg_1": other, "label_0": 1}
    rows = [row | pair for row in rows_of(fields)]
    pq.write_table(pa.Table.from_pylist(rows), write(path, {"x": b""}) / "0.parquet")
    return path, {f"{n:09d}": want for n, (_, want) in enumerate(fields.values())}


def votes_in_a_csv(path, fields, loose):
    lines = [
        f"{key}.png,b.jpg,1,no,{row['description'] or ''}" for key, (row, _) in fields.items()
    ]
    write(path, {f"{key}.png": PNG for key in fields} | {"b.jpg": PNG})
    names = "image_0,image_1,label_0,text,description"
    write(path, {"votes.csv": "\n".join([names, *lines])})
    wanted = {**{key: want for key, (_, want) in fields.items()}, "null": "[empty caption]"}
    return path / "votes.csv", {f"line {n}": want for n, want in enumerate(wanted.values(), 2)}


WITH_FIELDS = [jsonl, parquet_index, json_beside, json_in_tars, table, votes_in_a_table]
MORE = [comma_separated, kohya, votes_in_a_csv]
"""Those with texts alone, or rules of their own."""


@pytest.mark.parametrize(
    ("make", "named"),
    [
        *((make, None) for make in WITH_FIELDS),
        *((make, "description") for make in WITH_FIELDS + MORE),
    ],
)
def test_one_rule_for_captions_in_every_source(make, named, tmp_path, monkeypatch):
    """Whether its field has one of the usual names, or is named."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path, want = make(tmp_path / "d", *((NAMED, {}) if named else (FIELDS, LOOSE)))
    assert read(path, caption=named) == want
    votes = open_source([str(path)], Columns(caption=named)).others
    assert votes == (make in (votes_in_a_table, votes_in_a_csv))


BESIDE = {"a.png": PNG, "a.txt": "a cat"}
NO_FIELD = "caption-column nosuch: no entry of an index in .* has that field, and no picture has"
NO_COLUMN = "has no columns: leave --image-column nosuch out, since only parquet files"


@pytest.mark.parametrize(
    ("files", "name", "columns", "says"),
    [
        (BESIDE, "", Columns(caption="nosuch"), NO_FIELD),
        (
            {"a.png": PNG, "metadata.jsonl": '{"file_name": "a.png", "text": "x"}'},
            "",
            Columns(caption="nosuch"),
            NO_FIELD,
        ),
        ({"p.txt": "a cat"}, "p.txt", Columns(caption="nosuch"), "nosuch: .* a prompt a line"),
        (BESIDE, "", Columns("nosuch"), f"folder with 1 pictures {NO_COLUMN}"),
        ({"p.txt": "a cat"}, "p.txt", Columns("nosuch"), f"1 prompts {NO_COLUMN}"),
        ({"a.tar": b""}, "a.tar", Columns("nosuch"), f"1 tar files {NO_COLUMN}"),
        (
            {"v.csv": "image_0,image_1,label_0,text\na,b,1,x"},
            "v.csv",
            Columns("nosuch"),
            f"1 pairs with 1 votes {NO_COLUMN}",
        ),
        (
            {"v.csv": "image_0,image_1,label_0,text\na,b,1,x"},
            "v.csv",
            Columns(caption="nosuch"),
            "of votes wanted image_0, image_1, label_0 and nosuch",
        ),
    ],
)
def test_a_field_or_column_that_a_source_has_not_is_refused(files, name, columns, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        open_source([str(write(tmp_path / "d", files) / name)], columns)


def test_two_folders_have_fields_and_no_columns_either(tmp_path):
    for side in ("good", "bad"):
        write(tmp_path / side, {"a.png": PNG, "a.json": '{"long": "a cat", "text": "no"}'})
    better, worse = [str(tmp_path / "good")], tmp_path / "bad"
    (row,) = open_source(better, Columns(caption="long"), worse).rows(0)
    assert read_caption(row.captions).text == "a cat"
    with pytest.raises(ValueError, match=f"the worse in .*bad {NO_COLUMN}"):
        open_source(better, Columns("nosuch"), worse)


def test_another_field_is_another_source(tmp_path):
    """Tars are known by their sizes, so the field's name has to tell."""
    tar = str(data.tar(tmp_path / "0.tar", [("a.png", PNG), ("a.json", b'{"long": "x"}')]))
    own, named, none = (
        open_source([tar], Columns(caption=name)) for name in (None, "long", "nosuch")
    )
    assert len({own.stamp, named.stamp, none.stamp}) == 3
    with pytest.raises(NoCaption, match="a.json has no field 'nosuch'"):
        read_caption(next(iter(none.rows(0))).captions)


TEXTS = {
    "mark": (b"\xef\xbb\xbfa cat\r\n", "a cat"),
    "lines": (b"\none\ntwo\n", "one"),
    "latin": (b"caf\xe9", "[caption does not read as UTF-8]"),
    "utf16": ("a cat".encode("utf-16"), "[caption does not read as UTF-8]"),
    "blank": (b" \n", "[empty caption]"),
    "none": (b"", "[empty caption]"),
    "null": (b"null", "null"),
}


def test_text_files_beside_in_tars_and_alone(tmp_path):
    """A caption a line, of which the first is taken; .txt goes before .caption, and that before
    .json.
    """
    folder, members = {}, []
    for n, (key, (text, _)) in enumerate(TEXTS.items()):
        for name, value in ((f"{key}.png", PNG), (f"{key}{('.txt', '.caption')[n % 2]}", text)):
            folder[name] = value
            members.append((name, value))
    both = {"both.png": PNG, "both.caption": b"second", "both.txt": b"first", "both.json": b"{"}
    next_one = {"next.png": PNG, "next.caption": b"second", "next.txt": b" "}
    bad = {"bad.png": PNG, "bad.json": b"{", "deep.png": PNG, "deep.json": b"[" * 10**5}
    more = both | next_one | bad
    told = {key: want for key, (_, want) in TEXTS.items()}
    told |= {"both": "first", "next": "second", "bad": "[no caption]"}
    told |= {"deep": "[no caption]"}
    assert read(write(tmp_path / "d", folder | more)) == told
    tar = data.tar(tmp_path / "00.tar", [*members, *more.items()])
    assert read(tar) == {f"00/{key}": want for key, want in told.items()}
    lines = write(tmp_path, {"p.txt": b"\xef\xbb\xbfa cat\n\ncaf\xe9\na dog"}) / "p.txt"
    assert list(read(lines).values()) == [
        "a cat",
        "[empty caption]",
        "[caption does not read as UTF-8]",
        "a dog",
    ]


def test_bad_lines_of_a_csv_and_ordinary_layouts(tmp_path):
    """One index a folder, at any depth; a picture that it does not name may have a file."""
    text = 'file_name,text,more\na.png,"a cat, black",\nb.png,a dog\nc.png,x,y,z\ngone.png,x,\n'
    text = b"\xef\xbb\xbf" + text.encode() + b"\nd.png,caf\xe9,\ne.png,,\n,x,\n"
    files = {f"train/{key}.png": PNG for key in "abcdef"} | {"train/metadata.csv": text}
    files |= {"train/f.txt": "by its file", "train/README.txt": "no caption"}
    files |= {"test/z.png": PNG, "test/metadata.csv": b"file_name,text\nz.png,left out\n"}
    path = write(tmp_path / "d", files)
    assert read(path) == {
        "train/a.png": "a cat, black",
        "train/b.png": "a dog",
        "train/metadata.csv line 4": "[broken source]",
        "train/gone.png": "[no picture]",
        "train/d.png": "[caption cannot be written as UTF-8]",
        "train/e.png": "[empty caption]",
        "train/metadata.csv line 9": "[broken source]",
        "train/c.png": "[no caption]",
        "train/f.png": "by its file",
    }
    assert "left out: test" in open_source([str(path)]).what
    shutil.rmtree(path / "train")
    assert read(path) == {"test/z.png": "left out"}
    write(path, {"test/metadata.jsonl": b""})
    with pytest.raises(ValueError, match="holds metadata.csv and metadata.jsonl: keep the one"):
        read(path)
    odd = [{"file_name": name, "text": "x"} for name in ("\ud83d.png", "a\0.png", "a" * 300)]
    lines = [*map(json.dumps, [*odd, {"file_name": ["x"]}, ["x"]]), "[" * 10**5]
    lines = "\n".join(lines)
    assert read(write(tmp_path / "f", {"metadata.jsonl": lines})) == {
        "\\ud83d.png": "[no picture]",
        "a\0.png": "[no picture]",
        "a" * 300: "[no picture]",
        "metadata.jsonl line 4": "[broken source]",
        "metadata.jsonl line 5": "[broken source]",
        "metadata.jsonl line 6": "[broken source]",
    }
    spoiled = write(tmp_path / "e", {"a.png": PNG, "metadata.parquet": b"no parquet"})
    assert read(spoiled) == {"metadata.parquet": "[broken source]", "a.png": "[no caption]"}


def test_kohyas_files(tmp_path):
    """Keys with and without endings, tags, Windows' separators, and the newest stage."""
    entries = {
        "a.png": {"caption": "a cat"},
        "sub\\b": {"caption": "a dog", "tags": "brown, small"},
        "c": {"tags": "bird"},
        "gone": {"caption": "x"},
        "d": {"caption": 7},
        "e": None,
    }
    files = {f"{key}.png": PNG for key in ("a", "sub/b", "c", "d", "e")}
    files |= {"meta_clean.json": json.dumps(entries), "meta_cap.json": "{}", "c.txt": "no"}
    assert read(write(tmp_path / "k", files)) == {
        "a.png": "a cat",
        "sub\\b": "a dog, brown, small",
        "c": "bird",
        "gone": "[no picture]",
        "d": "[no caption]",
        "e": "[no caption]",
    }


def test_the_picture_of_a_sample_and_keys_that_begin_anew(tmp_path):
    other = data.png(Image.new("RGB", (16, 16)))
    files = [
        *(("0.mask.png", other), ("0.png", PNG), ("0.txt", b"a cat")),
        *(("1.jpg", other), ("1.png", PNG), ("1.txt", b"which?")),
        *(("2.depth.png", other), ("2.txt", b"no picture")),
        *(("3.heic", b"new"), ("3.txt", b"of a kind that is not read")),
        *(("caf\udce9.png", PNG), ("caf\udce9.txt", b"a bar")),
    ]
    paths = [tmp_path / "a" / "0.tar", tmp_path / "b" / "0.tar"]
    for path in paths:
        path.parent.mkdir()
        data.tar(path, files)
    want = {
        "0": "a cat",
        "1": "[several pictures]",
        "2": "[no picture]",
        "3": "[picture does not decode]",
        "caf\\udce9": "a bar",
    }
    told = {f"{place}/0/{key}": said for place in "ab" for key, said in want.items()}
    assert read(*paths) == read(tmp_path) == told
    rows = {row.key: row for row in open_source([str(tmp_path)]).rows(0)}
    assert rows["a/0/0"].picture == PNG
    write(tmp_path, {"a/preview.png": PNG})
    with pytest.raises(ValueError, match="holds both tars and pictures"):
        read(tmp_path)


def test_tables_of_other_writers(tmp_path, monkeypatch):
    """pandas' bytes and paths, texts that are not UTF-8, lists of pictures, splits by name, and
    files that a killed writer left without their end.
    """
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    held = [{"bytes": PNG, "path": None}, {"bytes": None, "path": None}, None]
    pandas = pa.table({"image": held, "text": ["a", "b", "c"]})
    bad = pa.StringArray.from_buffers(
        3, pa.py_buffer(struct.pack("<4i", 0, 1, 2, 3)), pa.py_buffer(b"a\xffc")
    )
    (tmp_path / "d").mkdir()
    pq.write_table(pandas, tmp_path / "d" / "train-00000-of-00001.parquet")
    pq.write_table(pandas, tmp_path / "d" / "test-00000-of-00001.parquet")
    assert list(read(tmp_path / "d").values()) == ["a", "[no picture]", "[no picture]"]
    torn = (tmp_path / "d" / "train-00000-of-00001.parquet").read_bytes()[:-9]
    write(tmp_path / "d", {"train-00001-of-00001.parquet": torn})
    source = open_source([str(tmp_path / "d")])
    assert [row.fault and row.fault[0] for row in source.rows(2)] == [None, "broken source"]
    assert not list(source.rows(4))
    assert source.count == 4 and [row.key for row in source.rows(3)] == [
        str(tmp_path / "d" / "train-00001-of-00001.parquet")
    ]
    pq.write_table(pa.table({"text": bad}), tmp_path / "bad.parquet")
    assert list(read(tmp_path / "bad.parquet").values()) == ["a", "[broken source]", "c"]
    kinds = datasets.Features(
        {"images": datasets.List(datasets.Image()), "text": datasets.Value("string")}
    )
    several = datasets.Dataset.from_dict({"images": [[held[0]]], "text": ["a"]}, kinds)
    several.save_to_disk(tmp_path / "lists")
    with pytest.raises(ValueError, match="column images holds lists of pictures"):
        read(tmp_path / "lists")
    (arrow,) = (tmp_path / "lists").glob("*.arrow")
    os.truncate(arrow, arrow.stat().st_size // 2)
    with pytest.raises(ValueError, match="cannot be read as a saved dataset .*save it again"):
        read(tmp_path / "lists")


def encoded(picture: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


DEEP = {
    "png": png16(GREY),
    "tiff": tiff(GREY),
    "tiff of Motorola's order": tiff(GREY, ">"),
    "tiff with zero for white": tiff(65535 - GREY, white=0),
    "tiff of 12 bits": tiff(GREY, bits=12),
    "pgm": pnm16(GREY),
    "pgm of 12 bits": pnm16(GREY, 4095),
    "png in colour": png16(COLOUR),
    "png with opacity": png16(np.dstack([COLOUR, np.full_like(GREY, 65535)])),
    "tiff in colour": tiff(COLOUR),
    "ppm": pnm16(COLOUR),
}


@pytest.mark.parametrize("kind", DEEP)
def test_pictures_of_more_than_8_bits(kind):
    """Their upper 8 bits; where PIL scales them itself, it may round."""
    deep = COLOUR if "colour" in kind or "opacity" in kind or kind == "ppm" else GREY[..., None]
    far = np.asarray(decoded(DEEP[kind])).astype(int) - (deep >> 8)
    assert np.abs(far).max() <= 1


def test_pictures_that_do_not_say_what_is_white_are_refused():
    for mode, value in (("F", 0.5), ("I", 70000)):
        with pytest.raises(ValueError, match=f"mode {mode}, .*which value is white is not said"):
            decoded(encoded(Image.new(mode, (4, 4), value), "TIFF"))


def test_palettes_opacity_inks_and_orientation():
    """What is transparent is white, CMYK are inks, and EXIF's orientation turns a picture once,
    of 16 bits too.
    """
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    white, exif = (255, 255, 255), Image.Exif()
    clear = int(GREY[3, 3])
    for source, want in (
        (encoded(palette, "PNG"), (0, 255, 0)),
        (encoded(palette, "PNG", transparency=1), white),
        (encoded(palette, "GIF", transparency=1), white),
        (encoded(Image.new("LA", (4, 4), (0, 0)), "PNG"), white),
        (encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "WEBP", lossless=True), white),
        (encoded(Image.new("1", (4, 4), 1), "PNG"), white),
        (encoded(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
        (png16(np.full((4, 4), clear, np.uint16), struct.pack(">H", clear)), white),
    ):
        assert decoded(source).getpixel((0, 0)) == want
    exif[0x0112] = 6  # a quarter turn
    flat = Image.fromarray(np.arange(128, dtype=np.uint8).reshape(8, 16))
    deep = Image.fromarray(np.asarray(flat).astype(np.uint16) * 257)
    want = np.asarray(flat.transpose(Image.Transpose.ROTATE_270))
    for picture, kind in ((flat, "PNG"), (flat, "TIFF"), (deep, "PNG"), (deep, "TIFF")):
        got = np.asarray(decoded(encoded(picture, kind, exif=exif)))[..., 0]
        assert np.array_equal(got, want), (picture.mode, kind)


def test_names_and_captions_that_cannot_be_encoded_end_to_end(tmp_path, capsys):
    """Kept or named, the same on a second run, and readable by others; the family's grammar
    refuses a row, not the data.
    """
    os.chdir(tmp_path)
    old = os.umask(0o027)
    try:
        files = {f"{key}.png": PNG for key in ("caf\udce9", "b", "c", "d", "wide")}
        wide = encoded(Image.new("RGB", (2000, 2)), "PNG")
        files |= {"caf\udce9.txt": "a red circle\na blue circle", "b.txt": "a red cat"}
        files |= {"c.json": '{"text": "\\ud83d"}', "d.txt": "a blue square", "wide.png": wide}
        files |= {"wide.txt": "a red circle"}
        files |= {f"e{n}.png": PNG for n in range(3)} | {
            f"e{n}.txt": "a square" for n in range(3)
        }
        source = write(tmp_path / "caf\udce9", files)
        config = prepare.Config((str(source),), tmp_path / "out", family="shapes", tiny=True)
        said = prepare.run(config)
        (config.out / "info.json").unlink()
        shutil.rmtree(config.out / "shard-00000")
        assert prepare.run(config) == said
    finally:
        os.umask(old)
    report = json.loads((config.out / "report.json").read_text(encoding="utf-8"))
    assert {row["key"]: row["reason"] for row in report["bad_rows"]} == {
        "b": "caption that this family cannot encode",
        "c": "caption cannot be written as UTF-8",
        "wide": "picture cannot be scaled",
    }
    rows = Rows(config.out)
    assert rows.captions([0]) == ["a red circle"] and len(rows) == 5
    assert capsys.readouterr().out.count("source: folder with 8 pictures") == 2
    assert report["several_keys"] == ["caf\\udce9"]
    assert "    caf\\udce9" in (config.out / "report.txt").read_text()
    for path in config.out.rglob("*"):
        if path.name != ".lock":
            assert path.stat().st_mode & 0o777 == (0o750 if path.is_dir() else 0o640), path
