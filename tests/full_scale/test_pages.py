"""The commands that README and pages print, run in their order as they are written.

Every word is read by the command itself. What a folder of the reader's would hold is there under
the name that the page gives it: tiny random weights, pictures, prompts, votes. Three things are
smaller: a run ends after two steps of few rows, `torchrun` starts one process, and the captioned
shapes are forty. Of the chapters' commands the words are read and checked, and nothing is run.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

import tiny_clip
import toy_data.shapes
from dlib.grids import SPACINGS
from dlib.recipes import METHODS
from full_scale import evaluate, export, prepare, sample, train
from full_scale.families import named
from full_scale.run.settings import read
from toy_data.shapes import write_folder

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(f"book/pages/for/{n}.md" for n in ("full-scale", "engineer", "reader"))]


LOOP = re.compile(r"^(?:\w+=\S+\n)*for .*?^done\n", re.M | re.S)
SAID = "".join(
    f'{name}() {{ printf "%q " {name} "$@"; echo; }}\n'
    for name in ("python", "torchrun", "full_scale/launch/one_node.sh")
)


def unrolled(loop: str) -> str:
    """The lines that bash would run in a loop, one after another."""
    bash = ["bash", "-uc", SAID + loop]
    return subprocess.run(bash, capture_output=True, text=True, check=True).stdout


def commands(text: str) -> list[list[str]]:
    """The words of every line in a block of code that starts one of our programs, as often as
    its loop runs.
    """
    blocks = "".join(re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S))
    blocks = LOOP.sub(lambda found: unrolled(found[0]), blocks)
    found = []
    for line in blocks.replace("\\\n", " ").splitlines():
        if re.match(
            r"(python|torchrun) .*-m full_scale|full_scale/launch/|python -c .*toy_", line
        ):
            found.append(shlex.split(line, comments=True))
    return found


def test_a_loop_is_read_as_bash_runs_it():
    lines = (
        "last=32\nfor n in 16 8; do\n    full_scale/launch/one_node.sh progressive \\\n"
        "        --weights runs/$last --out runs/$n || break\n    last=$n\ndone\n"
    )
    said = commands(f"```bash\npython -m full_scale.export a\n{lines}```\n")
    of = lambda last, n: f"progressive --weights runs/{last} --out runs/{n}".split()
    assert [words[1:] for words in said] == [
        ["-m", "full_scale.export", "a"],
        of(32, 16),
        of(16, 8),
    ]


def perform(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """What the shell would do with them."""
    if words[1] == "-c":
        return exec(words[2], {})
    if words[0].startswith("full_scale/launch/"):
        assert (ROOT / words[0]).is_file()
        words = ["-m", "full_scale.train", *words[1:]]
    name, *arguments = words[words.index("-m") + 1 :]
    patch.setattr(sys, "argv", [name, *arguments])
    importlib.import_module(name).main()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """What a reader has before the first command, by the names of the pages."""
    root = tmp_path_factory.mktemp("shelf")
    for name, family in {
        "weights/stable-diffusion-v1-5": "sd",
        "weights/stable-diffusion-xl-base-1.0": "sdxl",
        "weights/stable-diffusion-3.5-medium": "sd3",
        "DIR_OR_HUB_ID": "sd",
    }.items():
        named(family).tiny_pipeline().save_pretrained(root / name)
    tiny_clip.write(root / "weights/clip-vit-large-patch14")
    dino = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    Dinov2Model(dino).save_pretrained(root / "weights/dinov2-base")
    size = {"height": 28, "width": 28}
    BitImageProcessor(size=size, crop_size=size).save_pretrained(root / "weights/dinov2-base")
    write_folder(root / "pictures", 40, seed=0)
    write_folder(root / "real", 8, seed=1)
    prepare.run(prepare.Config((str(root / "pictures"),), root / "DATA", tiny=True))
    (root / "prompts.txt").write_text("\n".join(f"a cat {n}" for n in range(40)))
    with (root / "votes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image_0", "image_1", "label_0", "caption"])
        for n in range(20):
            pair = [f"pictures/{k:06d}.png" for k in (n, n + 20)]
            table.writerow([*pair, n % 2, "a red circle"])
    return root


def briefly(arguments, *more):
    """The settings that the words ask for, of which two steps are taken."""
    s = read(arguments, *more)
    rolls = {"group": 2, "steps": 4} if hasattr(s.hyper, "group") else {}  # a prompt's pictures
    hyper = dataclasses.replace(s.hyper, **rolls)
    return dataclasses.replace(s, hyper=hyper, steps=2, batch=4, micro=2, show_every=2)


def follow(text: str, shelf: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """All commands of a page, in a folder of their own."""
    shutil.copytree(shelf, folder, dirs_exist_ok=True)
    patch.chdir(folder)
    patch.setattr(train, "read", briefly)
    patch.setattr(
        toy_data.shapes, "write_folder", lambda path, n, seed: write_folder(path, 40, seed)
    )
    for words in commands(text):
        try:
            perform(words, patch)
        except SystemExit as end:
            assert not end.code, f"{shlex.join(words)}: {end.code}"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run_as_they_are_written(page, shelf, tmp_path, monkeypatch):
    follow((ROOT / page).read_text(), shelf, tmp_path, monkeypatch)


def test_the_commands_of_the_chapters_are_read(shelf, monkeypatch):
    """As far as `train` gets before it opens anything: so their rewards have what they need."""
    monkeypatch.chdir(shelf)
    for module in (export, prepare, sample):
        monkeypatch.setattr(module, "run", lambda config: None)
    monkeypatch.setattr(train, "train", lambda settings: None)
    count = 0
    for chapter in sorted((ROOT / "chapters").glob("[0-3]*.py")):
        text = re.sub(r"^# ?", "", chapter.read_text(), flags=re.M)
        in_tables = re.findall(r"`(full_scale\.train [^`]*--[^`]+)`", text)
        said = [shlex.split(f"python -m {line} --tiny --data data") for line in in_tables]
        for words in commands(text) + said:
            count += 1
            try:
                perform(words, monkeypatch)
            except SystemExit as end:
                assert not end.code, f"{chapter.name}: {shlex.join(words)}: {end.code}"
    assert count > 40


def flags() -> set[str]:
    """Of all our commands: what their records and the methods' functions have."""
    records = (train.Settings, prepare.Config, sample.Config, evaluate.Config, export.Export)
    names = {field.name for record in records for field in dataclasses.fields(record)}
    hyper = {name for f in METHODS.values() for name in inspect.signature(f).parameters}
    known = names | {f"hyper.{name}" for name in hyper} | {"processes", "card", "dry_run"}
    return {f"--{name.replace('_', '-')}" for name in known}


def test_the_engineer_s_page_names_every_grid():
    page = (ROOT / "book/pages/for/engineer.md").read_text()
    said = page.split("The grids are ")[1].split(";")[0]
    assert set(re.findall(r"`(\w+)`", said)) == set(SPACINGS)


THEIRS = {"--logdir", "--standalone", "--nproc_per_node", "--mem"}
"""Flags of TensorBoard, torchrun and SLURM."""


def test_a_flag_in_a_sentence_is_one_of_a_command():
    """In tables, sentences and comments, which no test runs."""
    full_scale = ROOT / "full_scale"
    texts = [ROOT / page for page in PAGES]
    texts += [*full_scale.glob("recipes/*.toml"), full_scale / "launch/one_gpu.sh"]
    named = {
        (path.name, flag)
        for path in texts
        for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", path.read_text())
    }
    assert len(named) > 100
    assert sorted({pair for pair in named if pair[1] not in flags() | THEIRS}) == []
