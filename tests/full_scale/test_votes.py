"""Votes and CSVs of other people: one bad row is one line of the report, and takes no other with
it, whatever holds the pictures.
"""

from __future__ import annotations

import datafolders as data
import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from full_scale import prepare
from full_scale.data.encoding import examine
from full_scale.data.rows import Rows
from full_scale.sources import commas
from full_scale.sources.choose import open_source
from full_scale.sources.tables import Columns

RED, BLUE = (data.png(Image.new("RGB", (16, 16), ink)) for ink in ("red", "blue"))
LABELS = [1, 0, 1, 1, 1, 0]
OPEN = "[broken source: a quote opens here and is not closed before the next entry]"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for name, png in (("red", RED), ("blue", BLUE), ("broken", b"no")):
        (tmp_path / f"{name}.png").write_bytes(png)


def read(source) -> list[str]:
    """Of each row its caption, with which picture won, or what is wrong with it in brackets."""
    source = source if hasattr(source, "rows") else open_source([str(source)])
    rows = list(source.rows(0))
    assert source.count == len(rows) and list(source.rows(1)) == rows[1:]
    found = [examine(row, 16, True, source.others) for row in rows]
    won = lambda one: "red" if one.picture.getpixel((0, 0)) == (255, 0, 0) else "blue"
    wrong = lambda fault: f"[{': '.join(filter(None, fault))}]"
    told = [wrong(each.fault) if each.fault else each.caption for each in found]
    return [f"{t}, {won(f)}" if f.other and not f.fault else t for t, f in zip(told, found)]


def stored(kind, tmp_path):
    """A good vote and its reverse, a broken picture, one that is missing, one against itself and
    a vote for what is not a picture.
    """
    path = lambda name: f"{name}.png"
    as_bytes = {"red": RED, "blue": BLUE, "broken": b"no", "gone": None, "odd": b""}
    as_struct = {name: {"bytes": value, "path": None} for name, value in as_bytes.items()}
    as_struct["gone"] = None
    as_paths = {name: path(name) for name in ("red", "blue", "broken")}
    as_paths |= {"gone": None, "odd": "https://a.org/b.jpg"}
    cells = {"bytes": as_bytes, "paths": as_paths, "struct": as_struct}.get(kind, as_struct)
    pairs = [
        ("red", "blue"),
        ("blue", "red"),
        ("red", "broken"),
        ("gone", "blue"),
        ("red", "red"),
    ]
    two = list(zip(*pairs, ("blue", "odd")))
    columns = {f"jpg_{n}": [cells[name] for name in two[n]] for n in (0, 1)}
    columns |= {"label_0": LABELS, "caption": [f"c{n}" for n in range(6)]}
    if kind in ("saved", "parquet"):
        pictures = datasets.Image()
        kinds = {"jpg_0": pictures, "jpg_1": pictures, "label_0": datasets.Value("int64")}
        kinds["caption"] = datasets.Value("string")
        table = datasets.Dataset.from_dict(columns, datasets.Features(kinds))
        if kind == "saved":
            table.save_to_disk(tmp_path / "votes")
            return tmp_path / "votes"
        table.to_parquet(tmp_path / "votes.parquet")
    else:
        pq.write_table(pa.table(columns), tmp_path / "votes.parquet")
    return tmp_path / "votes.parquet"


@pytest.mark.parametrize("kind", ["saved", "parquet", "bytes", "struct", "paths"])
def test_a_vote_costs_itself_alone_whatever_holds_the_pictures(kind, tmp_path):
    good, turned, broken, gone, itself, odd = read(stored(kind, tmp_path))
    assert (good, turned) == ("c0, red", "c1, red")
    assert broken.startswith("[worse picture does not decode: UnidentifiedImageError")
    assert gone.startswith("[no picture")
    assert itself.startswith("[picture against itself: ")
    if kind == "paths":
        assert odd.startswith("[no picture: 'https://a.org/b.jpg': wanted a picture's bytes, or")
    else:
        assert odd.startswith("[no picture")


def test_what_is_no_picture_and_what_does_not_read_are_rows_too(tmp_path):
    """A column of numbers, a caption that is not UTF-8, a file that a killed writer left."""
    texts = pa.StringArray.from_buffers(
        2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffb")
    )
    table = pa.table({"jpg_0": [RED, RED], "jpg_1": [7, 8], "label_0": [1, 1], "caption": texts})
    (tmp_path / "d").mkdir()
    pq.write_table(table, tmp_path / "d" / "0.parquet")
    whole = (tmp_path / "d" / "0.parquet").read_bytes()
    (tmp_path / "d" / "1.parquet").write_bytes(whole[:-9])
    undecoded, number, torn = read(tmp_path / "d")
    assert undecoded.startswith("[broken source: not UTF-8")
    assert number.startswith("[no picture: a value of type int: wanted a picture's bytes")
    assert torn.startswith("[broken source: not readable as parquet")
    columns = Columns(image="path", caption="text")
    rows = {"path": ["red.png", "gone.png", "http://x"], "text": ["a", "b", "c"]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "paths.parquet")
    said = read(open_source([str(tmp_path / "paths.parquet")], columns))
    assert said[0] == "a" and [each[:12] for each in said[1:]] == ["[no picture:"] * 2


HUGE = "x" * 200_000
CELLS = [
    ('"a red, round circle"', "a red, round circle"),
    ('"two\nlines, here"', "two\nlines, here"),
    ('"a quote that is never closed', OPEN),
    ("plain", "plain"),
    ('"again in ""quotes"""', 'again in "quotes"'),
    ('"closed by chance', OPEN),
    ('in the next line: 5"', 'in the next line: 5"'),
    ('"big" dog', "big dog"),
    (HUGE, HUGE),
    ("a comma, unquoted", "[broken source: more fields than the first line has]"),
    ("", "[empty caption]"),
    ('"open at the end', OPEN),
]
"""What is written in the last cell, and what must come of it."""


@pytest.mark.parametrize("kind", ["votes", "metadata"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quote_that_is_not_closed_costs_its_own_line(kind, end, tmp_path):
    names = [f"{n}.png" for n in range(len(CELLS))]
    for name in names:
        (tmp_path / name).write_bytes(RED)
    long = f"{'n' * 300}.png"
    votes = kind == "votes"
    begin = (lambda name: f"{name},blue.png,1,") if votes else (lambda name: f"{name},")
    lines = ["image_0,image_1,label_0,text" if votes else "file_name,text", f"{begin(long)}long"]
    lines += [begin(name) + cell for name, (cell, _) in zip(names, CELLS)]
    path = tmp_path / f"{kind}.csv"
    path.write_bytes(b"\xef\xbb\xbf" + end.join(lines).replace("\n", end).encode())
    if end == "\r\n":
        path.write_bytes(path.read_bytes().replace(b"\r\r\n", end.encode()))
    want = ["[no picture]", *(told.replace("\n", end) for _, told in CELLS)]
    said = read(path if votes else tmp_path)[: len(want)]
    assert said == [t if t.startswith("[") or not votes else f"{t}, red" for t in want]
    rows = open_source([str(path if votes else tmp_path)]).rows(0)
    places = [row.where for row in rows if row.fault and row.fault[1] in OPEN]
    assert [int(where.split()[-1]) for where in places] == [6, 9, 15]


def test_a_quote_in_a_long_file_is_looked_for_near_by():
    """No caption has thousands of lines, though a quote far below would close it."""
    lines = [b"file_name,text", b'0,"open', *(b"%d,x" % n for n in range(1, 5000)), b'5000,y"']
    (first, said), *rest = commas.entries(b"\n".join(lines), lambda entry: False)[1]
    assert (first, said) == (2, commas.UNCLOSED) and len(rest) == 5000
    assert rest[0] == (3, {"file_name": "1", "text": "x"})


def test_a_picture_against_itself_is_named_in_a_csv_and_in_folders(tmp_path):
    """By another name, by its pixels, and also where the votes on it differ."""
    (tmp_path / "copy.png").write_bytes(RED)
    lines = ["image_0,image_1,label_0,text", "red.png,blue.png,1,a red circle"]
    lines += ["red.png,red.png,1,a", "blue.png,./blue.png,0,b", "copy.png,red.png,1,c"]
    lines += [f"red.png,blue.png,1,a {ink} square" for ink in ("red", "blue", "green")]
    (tmp_path / "votes.csv").write_text("\n".join(lines))
    config = {"family": "shapes", "tiny": True}
    said = prepare.run(prepare.Config(("votes.csv",), tmp_path / "out", **config))
    assert "3 × picture against itself" in said and len(Rows(tmp_path / "out")) == 4
    for side, png in (("good", RED), ("bad", RED)):
        (tmp_path / side).mkdir()
        (tmp_path / side / "a.png").write_bytes(png)
        (tmp_path / side / "a.txt").write_text("a red circle")
    (told,) = read(open_source(["good"], worse=tmp_path / "bad"))
    assert told.startswith("[picture against itself: ")
