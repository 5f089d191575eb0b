"""What in the text of an answer reaches beyond the formula that its question asks for.

The library can be imported where answers run, and Python has many ways to spell an import. So
this is a list of what answers need, and whatever else a text names is noted for a person to
look at. Nothing is executed, and no point is taken.
"""

import builtins
import io
import keyword
import re
import tokenize
import unicodedata

_MODULES = set(
    "math cmath torch numpy scipy functools itertools collections typing dataclasses statistics "
    "fractions contextlib warnings random".split()
)
_BUILTINS = set(
    "abs all any bool callable complex dict divmod enumerate filter float frozenset int "
    "isinstance iter len list map max min next object pow print property range repr reversed "
    "round set slice sorted staticmethod str sum super tuple type zip True False None".split()
)
_INSIDE = set(
    "dlib book sys os modules importlib import_module inspect gc ctypes builtins pickle runpy "
    "pkgutil subprocess hub _getframe tb_frame gi_frame cr_frame ag_frame f_back f_globals "
    "f_locals f_builtins attrgetter methodcaller get_type_hints ForwardRef testing f2py package "
    "cpp_extension".split()
)
_DUNDER = re.compile(r"__\w+__")
_PLAIN = {"__init__", "__call__", "__name__", "__len__", "__getitem__", "__iter__", "__next__"}
_WORD = re.compile(r"[^\W\d]\w*")
_IMPORT = re.compile(
    r"^[ \t]*(?:import|from)[ \t]+([\w.]+(?:[ \t]*,[ \t]*[\w.]+)*)", re.MULTILINE
)


def reaching(source: str) -> list[str]:
    """The names in an answer that its formula does not need, each once, in order: modules
    other than those of mathematics, built-in functions that find or run code, Python's insides.
    """
    text = unicodedata.normalize("NFKC", source)  # as Python does with names: ⅾlib is dlib
    found = [name for name in _names(text) if _odd(name)]
    for match in _IMPORT.finditer(text):
        modules = [name.strip().partition(".")[0] for name in match[1].split(",")]
        found += [name for name in modules if name and name not in _MODULES]
    if re.search(r"\bdlib\b", text):
        found.insert(0, "dlib")
    return list(dict.fromkeys(name.removeprefix(".") for name in found))


def _odd(name: str) -> bool:
    return (
        name in _INSIDE
        or (hasattr(builtins, name) and name not in _BUILTINS and not _is_exception(name))
        or (bool(_DUNDER.fullmatch(name)) and name not in _PLAIN)
        or (name.startswith("._") and name[1:] not in _PLAIN)
    )


def _is_exception(name: str) -> bool:
    kind = getattr(builtins, name)
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _names(text: str) -> list[str]:
    """Names in the code and in strings with a prefix f; comments and other strings have none."""
    found: list[str] = []
    try:
        before = ""
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind, string = token.type, token.string
            if kind == tokenize.NAME and not keyword.iskeyword(string):
                # model.eval() is a method, not the built-in function; x._grad is private
                private = string.startswith("_")
                if before != "." or private or string in _INSIDE:
                    found.append("." * (before == "." and private) + string)
            elif kind == tokenize.STRING and "f" in string[: string.find(string[-1])].lower():
                found += _WORD.findall(string)
            before = string
    # not Python: there will be no points, and what it names stands in it
    except (tokenize.TokenError, SyntaxError, RecursionError, MemoryError, ValueError):
        pass
    return found
