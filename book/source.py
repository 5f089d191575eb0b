"""Finds the source of a function or class in a file by reading the file, never by importing
it.
"""

import ast
import hashlib
import textwrap
from pathlib import Path


def source_of(path: Path, name: str) -> str:
    """The source of `name` ("ddim" or "Denoiser.__call__") in the Python file `path`:
    decorators included, dedented.

    KeyError if the file defines no such name.
    """
    text = path.read_text(encoding="utf-8")
    node = ast.parse(text)
    for part in name.split("."):
        node = _member(node, part)
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    lines = text.splitlines(keepends=True)[first - 1 : node.end_lineno]
    return textwrap.dedent("".join(lines)).rstrip() + "\n"


def _member(node: ast.AST, name: str) -> ast.AST:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [child for child in node.body if isinstance(child, kinds) and child.name == name]
    if not found:
        raise KeyError(name)
    return found[-1]


def fingerprint(source: str) -> str:
    """sha256 of a source text: what the build compares to see whether a shown function has
    changed.
    """
    return hashlib.sha256(source.encode("utf-8")).hexdigest()
