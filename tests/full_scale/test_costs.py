"""What the launch scripts and recipes say a run costs, against the estimate of today: a copied
figure must not grow old.
"""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from full_scale.cost.quote import GPUS, MFU
from full_scale.cost.needs import needs
from full_scale.run.settings import read

FULL_SCALE = Path(__file__).resolve().parents[2] / "full_scale"
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


@pytest.fixture(scope="module")
def counted(sd15):
    """Words of a command → (its settings, its needs on 8 GPUs)."""

    @cache
    def count(words):
        s = read([*words.split(), "--weights", str(sd15)])
        return s, needs(s, 8)

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


def test_one_card_of_24_gb_holds_what_its_recipe_promises(counted):
    assert (
        "One 24 GB GPU holds SD 1.5 with micro = 2 and recompute"
        in (FULL_SCALE / "recipes" / "finetune.toml").read_text()
    )
    assert counted("finetune --micro 2 --recompute")[1].peak("ddp", 1) < 0.9 * 24e9
