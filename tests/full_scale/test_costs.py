"""What the launch scripts and recipes say a run costs, against the estimate of today: a copied
figure must not grow old.
"""

import math
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from full_scale.cost.quote import GPUS, MFU
from full_scale.cost.needs import NODE, fits, needs
from full_scale.run.settings import read

FULL_SCALE = Path(__file__).resolve().parents[2] / "full_scale"
CHAPTERS = FULL_SCALE.parent / "chapters"
ROW = re.compile(
    r"^# {10,}(\w+(?: --\S+(?: \d+)?)*) {2,}(\d+) GB((?: {2,}(?:RTX 4090|[A-Z]\d+) +[\d.]+ "
    r"h)+)(?: {2,}(\d+) GB with --parallel fsdp)?$",
    re.MULTILINE,
)
TABLES = {
    script: ROW.findall((FULL_SCALE / "launch" / script).read_text())
    for script in ("one_gpu.sh", "one_node.sh")
}
PROCESSES = {"one_gpu.sh": 1, "one_node.sh": 8}
SD3 = ("nft", "flow_grpo")


@pytest.fixture(scope="module")
def counted(sd15, sd35):
    """Words of a command → (its settings, its needs on 8 GPUs)."""

    @cache
    def count(words, processes=8):
        weights = sd35 if words.split()[0] in SD3 else sd15
        s = read([*words.split(), "--weights", str(weights)])
        return s, needs(s, processes)

    return count


def is_rounded(shown: str, value: float) -> bool:
    """Whether a figure is this value, rounded to the digits that it shows."""
    return abs(float(shown) - value) <= 0.5 * 10.0 ** -len(shown.partition(".")[2]) + 1e-9


def test_every_row_is_found():
    assert len(TABLES["one_gpu.sh"]) == 2 and {row[0] for row in TABLES["one_node.sh"]} == {
        path.stem
        for path in (FULL_SCALE / "recipes").glob("*.toml")
        if tomllib.loads(path.read_text()).get("family", "sd") == "sd"
    }
    assert all(
        f"{MFU * 100:.0f} %" in (FULL_SCALE / "launch" / script).read_text() for script in TABLES
    )


@pytest.mark.parametrize(
    ("script", "row"),
    [(script, row) for script, rows in TABLES.items() for row in rows],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_figure_is_what_the_estimate_says(script, row, counted):
    words, memory, times, sharded = row
    s, need = counted(words)
    assert is_rounded(memory, need.peak("ddp", 8) / 1e9) and (
        not sharded or is_rounded(sharded, need.peak("fsdp", 8) / 1e9)
    )
    for gpu, hours in re.findall(r"(RTX 4090|[A-Z]\d+) +([\d.]+) h", times):
        peak = next(peak for name, (peak, _) in GPUS.items() if name.startswith(gpu))
        assert is_rounded(
            hours, need.flops(s) * s.steps / PROCESSES[script] / (peak * 1e12 * MFU) / 3600
        ), gpu


def test_what_a_chapter_says_of_a_run_is_what_the_script_says():
    chapters = "".join(path.read_text() for path in sorted(CHAPTERS.glob("*.py")))
    said = re.findall(r"`(\w+)` needs (\d+) GB a card and ([\d.]+) hours", chapters)
    known = {words: (memory, times) for words, memory, times, _ in TABLES["one_node.sh"]}
    assert len(said) >= 15
    for recipe, memory, hours in said:
        assert known[recipe][0] == memory and f"A100 {hours:>3} h" in known[recipe][1], recipe


def test_the_memory_of_the_host_is_what_the_estimate_says(counted):
    """SLURM's --mem: a tenth above the largest, in whole 8 GiB; what the scripts say of a node of
    eight and of one GPU.
    """
    assert PROCESSES["one_node.sh"] == NODE
    rows = [counted(row[0]) for row in TABLES["one_node.sh"]]
    hosts = [need.host(s, NODE, NODE) for s, need in rows]
    said = (FULL_SCALE / "launch" / "one_node.sh").read_text()
    each, more, copy = re.search(
        r"for each of these: (\d+) GB while.*\((\d+) GB for reward_gradient.*at most (\d+) GB of it",
        said,
        re.DOTALL,
    ).groups()
    for (s, _), host in zip(rows, hosts, strict=True):
        figure = more if s.method == "reward_gradient" else each
        assert is_rounded(figure, host["at most"] / 1e9), s.method
    assert is_rounded(copy, max(host["copy of a checkpoint"] for host in hosts) / 1e9)
    slurm = (FULL_SCALE / "launch" / "slurm.sh").read_text()
    need_gib = max(host["at most"] for host in hosts) / 2**30
    assert re.findall(r"--mem=(\d+)G", slurm) == [str(8 * math.ceil(1.1 * need_gib / 8))]
    assert re.findall(r"-per-node=(\d+)", slurm) == [str(NODE)] * 2
    alone = (FULL_SCALE / "launch" / "one_gpu.sh").read_text()
    for name, figure in re.findall(r"(lcm_lora|finetune) ([\d.]+) GB w", alone):
        s, need = counted(name)
        assert is_rounded(figure, need.host(s, 1, 1)["at most"] / 1e9), name
    # a node of two nodes has half of the shards, and all that one process copies
    s, need = counted("dpo")
    sharded = need.host(read(["dpo", "--tiny", "--parallel", "fsdp"]), 16, 8)
    assert 2 * sharded["copy of a checkpoint"] == need.host(s, 16, 8)["copy of a checkpoint"]


PAGE = FULL_SCALE.parent / "book" / "pages" / "for" / "full-scale.md"
CARD = re.findall(
    r"^\| `(\w+)` \| (nothing|`[^`]+`) \| (\d+) \|$", PAGE.read_text(), re.MULTILINE
)


@pytest.mark.parametrize("row", CARD, ids=lambda row: row[0])
def test_the_page_names_the_way_that_fits_a_card_of_24_gb(row, counted):
    """It fits with a tenth to spare, and the recipe as it is does not. All recipes are there."""
    recipe, add, figure = row
    words = recipe if add == "nothing" else f"{recipe} {add.strip('`')}"
    rolls = recipe in (*SD3, "ddpo")  # all of a step's samples are on the one card
    s, need = counted(words, 1) if rolls else counted(words)
    assert is_rounded(figure, need.peak("ddp", 1) / 1e9) and fits(need, s, 1, 24)
    if words != recipe and recipe not in SD3:
        assert not fits(counted(recipe)[1], s, 1, 24)
    assert {recipe for recipe, *_ in CARD} == {row[0] for row in TABLES["one_node.sh"]} | {*SD3}


def test_one_card_of_24_gb_holds_what_its_recipe_promises(counted):
    assert (
        "One 24 GB GPU holds SD 1.5 with recompute"
        in (FULL_SCALE / "recipes" / "finetune.toml").read_text()
    )
    s, need = counted("finetune --recompute")
    assert fits(need, s, 1, 24)
