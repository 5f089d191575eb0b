"""Which module of the repository imports which, read from the sources.

python -m tests.import_graph        the house: packages and rooms by floor, and what each imports
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dlib", "toy_data", "book", "full_scale", "bench")
ORDER = {name: floor for floor, name in enumerate((*PACKAGES, "chapters"))}
"""Package ↦ floor: each imports only from those below it, and nothing imports chapters."""
COMMANDS = {
    f"full_scale.{path.stem}"
    for path in (ROOT / "full_scale").glob("*.py")
    if path.stem != "__init__"
}
"""What is typed after `python -m`."""


def dotted(path: Path) -> str:
    """dlib/solvers/ddim.py ↦ dlib.solvers.ddim; a package's __init__.py is the package."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules(root: Path = ROOT) -> dict[str, Path]:
    """The file of every module, from the root, by its dotted name."""
    paths = sorted(path for top in PACKAGES for path in (root / top).rglob("*.py"))
    return {dotted(path): path for path in (path.relative_to(root) for path in paths)}


@cache
def sources(root: Path = ROOT) -> dict[str, str]:
    """The text of every module by its dotted name."""
    return {name: (root / path).read_text() for name, path in modules(root).items()}


def chapters() -> dict[str, str]:
    """The text of every chapter and assignment, which nothing imports, by a dotted name."""
    paths = sorted((ROOT / "chapters").rglob("*.py"))
    return {dotted(path.relative_to(ROOT)): path.read_text() for path in paths}


@cache
def statements(text: str) -> list[tuple[str, str]]:
    """(module, name) of every import in a source, at any depth of its functions; name is "" for
    `import module`. `if TYPE_CHECKING:` is left out, since nothing there happens.
    """

    def visit(node: ast.AST) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, "") for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from ((child.module, alias.name) for alias in child.names)
            elif not isinstance(child, ast.expr):
                yield from visit(child)

    return list(visit(ast.parse(text)))


def imported(text: str, known: Mapping[str, str]) -> set[str]:
    """The modules among `known` that a source imports; `from package import name` may name a
    module.
    """
    return {
        f"{module}.{name}" if f"{module}.{name}" in known else module
        for module, name in statements(text)
    } & set(known)


def graph(known: Mapping[str, str]) -> dict[str, set[str]]:
    """Module ↦ the modules whose code runs because it imports them: those it names, and the
    packages around those that are not around itself.
    """

    def around(name: str) -> set[str]:
        parts = name.split(".")
        return {".".join(parts[:k]) for k in range(1, len(parts) + 1)} & set(known)

    found = {}
    for name, text in known.items():
        named = imported(text, known) - {name}
        found[name] = named | {each for other in named for each in around(other) - around(name)}
    return found


@cache
def importers(root: Path = ROOT) -> dict[str, set[str]]:
    """Module ↦ the modules that name it in an import."""
    known = sources(root)
    found: dict[str, set[str]] = {name: set() for name in known}
    for name, text in known.items():
        for each in imported(text, known) - {name}:
            found[each].add(name)
    return found


def stacked(known: Mapping[str, str]) -> dict[str, set[str]]:
    """Package, or "chapters" ↦ the other packages that it imports."""
    found: dict[str, set[str]] = {}
    for name, text in known.items():
        own = name.split(".")[0]
        theirs = {each.split(".")[0] for each in imported(text, known)} - {own}
        found[own] = found.get(own, set()) | theirs
    return found


def room(module: str, package: str = "full_scale") -> str | None:
    """'full_scale.data.rows' ↦ 'data'; a command is its own; the package itself is none, and
    neither is a module of another package.
    """
    parts = module.split(".")
    return parts[1] if parts[0] == package and len(parts) > 1 else None


def touched(known: Mapping[str, str], package: str = "full_scale") -> dict[str, set[str]]:
    """Room ↦ the other rooms of the package that it imports."""
    found: dict[str, set[str]] = {}
    for name, text in known.items():
        if own := room(name, package):
            theirs = {room(each, package) for each in imported(text, known)} - {own, None}
            found[own] = found.get(own, set()) | theirs
    return found


def floors(package: str = "full_scale") -> dict[str, int]:
    """Room ↦ floor, by the package's table of CONTRIBUTING.md; the commands are one room."""
    head = {"dlib": "modules", "full_scale": "rooms of full_scale"}[package]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (rows,) = re.findall(rf"^\| floor \| {head} \|\n\|---\|---\|\n((?:\| \d.+\n)+)", text, re.M)
    return {
        name: int(floor)
        for floor, names in re.findall(r"^\| (\d+) \| (.+) \|$", rows, re.M)
        for name in re.findall(r"`(\w+)/?`", names)
    }


def house() -> str:
    """A line a package and a line a room, highest floor first: its floor, its name and what it
    imports.
    """
    parts = [("packages", ORDER, stacked(sources() | chapters()))]
    parts += [(name, floors(name), touched(sources(), name)) for name in ("full_scale", "dlib")]
    lines = []
    for title, level, arrows in parts:
        lines.append(f"{title}\n{len(title) * '='}")
        for name in sorted(arrows, key=lambda name: (-level[name], name)):
            below = sorted(arrows[name], key=lambda other: (-level[other], other))
            lines.append(f"{level[name]}  {name:18}→ {', '.join(below) or 'nothing'}")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(house())
