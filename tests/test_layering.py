"""The floors of the library: a module imports only from floors below, and heavy packages only
where they belong.
"""

import ast
import sys
import unicodedata
from pathlib import Path

import pytest

from book.floors import floors

ROOT = Path(__file__).resolve().parents[1]
FLOORS = floors(ROOT) | {"": 99}  # module or package of dlib → floor; dlib/__init__.py is on top
ABOVE = {"book", "toy_data", "full_scale", "bench", "chapters", "tests"}
# inside functions of these files only
LAZY = {
    "matplotlib": {
        f"dlib/plot/{name}.py" for name in ("grammar", "parallel", "paths", "students")
    },
    "scipy": {
        "dlib/solvers/reference_solution.py",
        "dlib/likelihood.py",
        "dlib/losses/coupling.py",
    },
}
ALLOWED = {"torch", "numpy", "dlib"} | set(sys.stdlib_module_names)
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "dlib").rglob("*.py"))


def tree(name):
    return ast.parse((ROOT / name).read_text())


def imports(node, runtime_only=True):
    """(module, at module level?) of every import, leaving out `if TYPE_CHECKING:` blocks."""

    def visit(node, top):
        for child in ast.iter_child_nodes(node):
            if (
                runtime_only
                and isinstance(child, ast.If)
                and getattr(child.test, "id", "") == "TYPE_CHECKING"
            ):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "relative import"
                yield child.module, top
                if child.module == "dlib":  # `from dlib import x` may name a module
                    yield from ((f"dlib.{alias.name}", top) for alias in child.names)
            yield from visit(
                child,
                top
                and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)),
            )

    return list(visit(node, True))


def unit(name):
    """'dlib/solvers/base.py' → 'solvers'; 'dlib/grids.py' → 'grids'; 'dlib/__init__.py' → ''."""
    first = Path(name).parts[1]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def violations(name, module):
    """What is wrong with importing `module` in the file `name`; an empty list if nothing is."""
    package, _, rest = module.partition(".")
    if package == "dlib":
        target, own = rest.split(".")[0], unit(name)
        same = target == own and name.count("/") >= 2  # inside one package
        ok = target != "" and (same or own == "" or FLOORS.get(target, 99) < FLOORS[own])
        return [] if ok else [f"{name} (floor {FLOORS[own]}) imports {module}"]
    if package in LAZY:
        return [] if name in LAZY[package] else [f"{name} imports {module}"]
    return [] if package in ALLOWED and package not in ABOVE else [f"{name} imports {module}"]


@pytest.mark.parametrize("name", FILES)
def test_imports_only_from_floors_below(name):
    assert unit(name) in FLOORS, f"{name}: give {unit(name)!r} a floor in CONTRIBUTING.md"
    found = imports(tree(name))
    assert not [v for module, _ in found for v in violations(name, module)]
    assert not [
        f"{name} imports {module} at module level"
        for module, top in found
        if top and module.split(".")[0] in LAZY
    ]


def test_the_table_of_floors_is_about_this_library():
    """`tokens` is kept free; a module dlib/discrete.py would hide the schedule."""
    assert set(FLOORS) - {unit(name) for name in FILES} <= {"tokens"}
    assert "discrete" not in FLOORS


@pytest.mark.parametrize(
    "name, module, wrong",
    [
        ("dlib/schedule.py", "dlib.denoiser", True),
        ("dlib/denoiser.py", "dlib.schedule", False),
        ("dlib/schedule/base.py", "dlib.grids", True),
        ("dlib/grids.py", "dlib.denoiser", True),
        ("dlib/solvers/exponential.py", "dlib.solvers.base", False),
        ("dlib/solvers/exponential.py", "dlib.losses", True),
        ("dlib/training/performing.py", "diffusers", True),
        ("dlib/training/performing.py", "tqdm", True),
        ("dlib/losses/weights.py", "scipy.integrate", True),
        ("dlib/solvers/reference_solution.py", "scipy.integrate", False),
        ("dlib/metrics.py", "toy_data.mixtures", True),
        ("dlib/nets.py", "dlib", True),
        ("dlib/training/performing.py", "dlib.plot", True),
    ],
)
def test_the_check_can_fail(name, module, wrong):
    assert bool(violations(name, module)) == wrong


def test_type_checking_blocks_and_depth_are_seen():
    source = (
        "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    from c import d\nclass "
        "K:\n    import e\n"
    )
    assert imports(ast.parse(source)) == [("a", True), ("c", False), ("e", True)]


def long_functions(source):
    """Those of more than 70 lines, and how many they have."""
    found = [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    ]
    return [entry for entry in found if entry[1] > 70]


@pytest.mark.parametrize("room", ["full_scale", "book", "toy_data", "bench"])
def test_files_and_functions_of_the_other_packages_are_short(room):
    """Questions are a list of cases and their files may be longer."""
    texts = {path: path.read_text() for path in (ROOT / room).rglob("*.py")}
    assert texts and not [
        path
        for path, text in texts.items()
        if len(text.splitlines()) > 300 and not path.match("book/truth/q??.py")
    ]
    assert not {path: long for path, text in texts.items() if (long := long_functions(text))}


def test_a_long_function_is_found():
    body = "    pass\n" * 69
    assert not long_functions(f"def f():\n{body}")
    assert long_functions(f"def f():\n{body}    pass\n") == [("f", 71)]


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_are_short(name):
    text = (ROOT / name).read_text()
    assert len(text.splitlines()) <= 300 and not long_functions(text)


def test_the_library_stays_readable():
    """Habits: the median file at most 150 lines; functions: median ≤ 15 lines, nine of ten ≤
    32.
    """
    files = sorted(len((ROOT / name).read_text().splitlines()) for name in FILES)
    spans = sorted(
        node.end_lineno - node.lineno + 1
        for name in FILES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef)
    )
    assert files[len(files) // 2] <= 150
    assert spans[len(spans) // 2] <= 15 and spans[int(0.9 * len(spans))] <= 32


def public(name):
    return [
        node
        for node in tree(name).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]


@pytest.mark.parametrize("name", FILES)
def test_everything_public_says_what_it_is(name):
    assert ast.get_docstring(tree(name)), f"{name} has no docstring"
    assert not [node.name for node in public(name) if not ast.get_docstring(node)]


def wide(name):
    """Lines of docstrings, of whatever they document, that are wider than 95 columns: a page
    of the site and a terminal of 98 columns would cut them.
    """
    lines = (ROOT / name).read_text().splitlines()
    columns = lambda line: sum(not unicodedata.combining(c) for c in line)
    return [
        f"{name}:{number}"
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for number in range(node.lineno, node.end_lineno + 1)
        if columns(lines[number - 1]) > 95
    ]


@pytest.mark.parametrize("name", FILES)
def test_docstrings_fit_a_page(name):
    assert not wide(name)
