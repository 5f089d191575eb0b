"""Make torchvision importable beside a CPU build of torch; touches no other room.

torchvision's wheel on PyPI is compiled for CUDA. Beside torch's CPU build its compiled library
does not load, `import torchvision` fails because two operators are unknown, and with it every
diffusers pipeline and transformers' image processors, which import what they find installed.
Nothing of this book needs those operators. So, when torchvision is first imported, its library
is loaded if it can be; if not, the two operators are declared, without a kernel: whoever calls
one still gets torchvision's own error. On a matching installation nothing is declared.

    python full_scale/launch/torchvision_startup.py

writes this file into the environment's site-packages with a `.pth` beside it, which Python
reads at every start: it costs microseconds until torchvision is imported. `make setup` does
so; in an environment of your own do it once, where torch has no CUDA.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

_declared = []  # a library of operators lives as long as somebody holds it


def prepare(folder: Path) -> bool:
    """Whether torchvision's compiled library in `folder` loads; if not, declare `nms` and
    `qnms`.
    """
    import torch

    try:
        for library in folder.glob("_C*"):
            torch.ops.load_library(library)
        return True
    except OSError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(operators)
        return False


class Finder:
    """Finds torchvision as Python would, and prepares it before it runs."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None and not _declared:
            run = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (
                prepare(Path(spec.origin).parent),
                run(module),
            )
        return spec


def install(site: Path) -> Path:
    """Write this file and its `.pth` into `site`; returns the `.pth`."""
    name = Path(__file__).stem
    (site / f"{name}.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    start = site / f"{name}.pth"
    start.write_text(f"import {name}\n", encoding="utf-8")
    return start


if __name__ == "__main__":
    import sysconfig

    print(install(Path(sysconfig.get_paths()["purelib"])))
elif not any(finder is Finder for finder in sys.meta_path):
    sys.meta_path.insert(0, Finder)
