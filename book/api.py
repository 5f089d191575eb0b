"""API pages of the library, found by looking at its files: one page a public module, in the
order of their floors.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

from book.floors import floors


@dataclass(frozen=True)
class Module:
    """A module to document: its dotted name and the first paragraph of its docstring."""

    name: str
    summary: str

    @property
    def uri(self) -> str:
        return f"api/{self.name}.md"


def modules(root: Path, package: str = "dlib") -> list[Module]:
    """Public modules below `package` that have a docstring, lowest floor first; modules without
    a floor come last.
    """
    top, order = root / package, list(floors(root))
    paths = sorted(
        set(top.rglob("*.py")) - {top / "__init__.py"},
        key=lambda path: _place(path.relative_to(top), order),
    )
    found = (_module(path, root) for path in paths)
    return [
        module
        for module in found
        if module and not any(part.startswith("_") for part in module.name.split("."))
    ]


def _place(path: Path, order: list[str]) -> tuple:
    name = path.parts[0].removesuffix(".py")
    known = order.index(name) if name in order else len(order)
    return known, name, path.name != "__init__.py", path.as_posix()


def _module(path: Path, root: Path) -> Module | None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        return None
    parts = path.relative_to(root).with_suffix("").parts
    return Module(
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts),
        " ".join(docstring.split("\n\n")[0].split()),
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
