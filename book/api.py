"""API pages of the library, found by looking at its files: one page a public module, in the
order a reader meets them.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

READING_ORDER = (
    "schedule grids mixtures nets lora discrete metrics denoiser conversion boundary solvers "
    "parallel rollout losses recipes fit plot"
).split()


@dataclass(frozen=True)
class Module:
    """A module to document: its dotted name and the first line of its docstring."""

    name: str
    summary: str

    @property
    def uri(self) -> str:
        return f"api/{self.name}.md"


def modules(root: Path, package: str = "dlib") -> list[Module]:
    """Public modules below `package` that have a docstring, in reading order; modules not in
    that order come last.
    """
    top = root / package
    paths = sorted(
        set(top.rglob("*.py")) - {top / "__init__.py"},
        key=lambda path: _place(path.relative_to(top)),
    )
    found = (_module(path, root) for path in paths)
    return [
        module
        for module in found
        if module and not any(part.startswith("_") for part in module.name.split("."))
    ]


def _place(path: Path) -> tuple:
    name = path.parts[0].removesuffix(".py")
    known = READING_ORDER.index(name) if name in READING_ORDER else len(READING_ORDER)
    return known, name, path.name != "__init__.py", path.as_posix()


def _module(path: Path, root: Path) -> Module | None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        return None
    parts = path.relative_to(root).with_suffix("").parts
    return Module(
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts), docstring.splitlines()[0]
    )


def page(module: Module) -> str:
    """The module's page: mkdocstrings fills it."""
    return f"# {module.name}\n\n::: {module.name}\n"


def overview(found: list[Module]) -> str:
    """The first page of the library: what each module is for."""
    rows = [f"| [`{module.name}`]({module.name}.md) | {module.summary} |" for module in found]
    intro = (
        "Every method of the book once, in small functions without hidden state. The chapters "
        "print these sources, and "
        "`full_scale/` calls the same functions on Stable Diffusion. Read from the top: a "
        "module imports only from those above it."
    )
    return "\n".join(
        ["# The library", "", intro, "", "| Module | What it is for |", "|---|---|", *rows, ""]
    )
