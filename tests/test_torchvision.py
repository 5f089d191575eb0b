"""torchvision beside torch, in processes that have prepared nothing themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from full_scale.launch import torchvision_startup

STOCK = """
import sys
assert "torch" not in sys.modules and "torchvision" not in sys.modules
from diffusers import StableDiffusionPipeline
from transformers import CLIPImageProcessor, CLIPTextModel
import torch, torchvision
from torchvision.utils import make_grid
assert make_grid(torch.zeros(4, 3, 2, 2), 2).shape == (3, 10, 10)
print("imported")
"""
ALONE = """
import sys
sys.meta_path = [one for one in sys.meta_path if getattr(one, "__name__", "") != "Finder"]
import torchvision
"""
MAKE = "run: python full_scale/launch/torchvision_startup.py"


def python(code: str) -> subprocess.CompletedProcess:
    """In a process without the repository on its path."""
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)


def test_stock_programs_import_beside_it_in_a_fresh_process():
    found = python(STOCK)
    assert found.stdout == "imported\n", f"{found.stderr[-2000:]}\n{MAKE}"


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch's torchvision loads")
def test_without_the_start_up_it_fails_beside_a_cpu_build():
    assert "operator torchvision::nms does not exist" in python(ALONE).stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch's torchvision loads")
def test_nothing_pretends_to_work():
    import torchvision

    with pytest.raises(RuntimeError, match="Couldn't load custom C\\+\\+ ops"):
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


def test_it_is_written_beside_what_python_reads_at_its_start(tmp_path):
    start = torchvision_startup.install(tmp_path)
    assert start.read_text() == "import torchvision_startup\n"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torchvision_startup as t"
    found = python(f"{code}; print(t.Finder in sys.meta_path, 'torch' in sys.modules)")
    assert found.stdout == "True False\n", found.stderr
