"""An unrelated package on PyPI is called dlib too. Whoever imports it here by accident is told
so.
"""

from importlib.util import find_spec
from pathlib import Path


def require_our_dlib() -> None:
    """Raise ImportError where `dlib` is the computer-vision package of that name. Imports
    nothing, torch least of all.
    """
    spec = find_spec("dlib")
    if spec is None:
        return  # the site builds without the library
    if (
        "Diffusion, Distilled"
        not in Path(spec.origin).read_text("utf-8", "replace").partition("\n")[0]
    ):
        raise ImportError(
            f"the dlib in {Path(spec.origin).parent} is the unrelated computer-vision package "
            "of that name: use this book's own "
            "environment (make setup), or `pip uninstall dlib`, then `pip install -e .` in the "
            "book's folder"
        )
