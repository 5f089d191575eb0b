"""What in the text of an answer reaches beyond the formula that its question asks for.

Who imports the library is seen where the answer runs (`watch`). This is for the other ways to
something: a list of what answers need, and whatever else a text names is noted for a person to
look at. Nothing is executed, and no point is taken.
"""

import builtins
import io
import keyword
import re
import tokenize
import unicodedata

_MODULES = set(
    "dlib math cmath torch numpy scipy functools itertools collections typing dataclasses "
    "statistics fractions contextlib warnings random".split()
)
_BUILTINS = set(
    "abs all any bool callable complex dict divmod enumerate filter float frozenset int "
    "isinstance iter len list map max min next object pow print property range repr reversed "
    "round set slice sorted staticmethod str sum super tuple type zip True False None "
    "_ display".split()  # what a shell, or gettext, puts among them while it runs
)
_INSIDE = set(
    "book sys os modules importlib import_module inspect gc ctypes builtins pickle runpy "
    "pkgutil subprocess hub _getframe tb_frame gi_frame cr_frame ag_frame f_back f_globals "
    "f_locals f_builtins attrgetter methodcaller get_type_hints ForwardRef testing f2py package "
    "cpp_extension get_ipython".split()
)
_STEPS = {".mix"}  # of a prediction, which answers are handed: a whole step without a formula
_DUNDER = re.compile(r"__\w+__")
_PLAIN = {"__init__", "__call__", "__name__", "__len__", "__getitem__", "__iter__", "__next__"}
_MODULE_NEXT = {("import", "import"), ("import", ","), ("from", "from")}
_WORD = re.compile(r"[^\W\d]\w*")


def reaching(source: str) -> list[str]:
    """The names in an answer that its formula does not need, each once, in order: modules
    other than those of mathematics, built-in functions that find or run code, Python's insides,
    the method of a prediction that is a whole step.
    """
    text = unicodedata.normalize("NFKC", source)  # as Python does with names: ｓys is sys
    found = [name for name in _names(text) if _odd(name)]
    return list(dict.fromkeys(re.sub(r"^(\.|import )", "", name) for name in found))


def _odd(name: str) -> bool:
    if name.startswith("import "):
        return name.removeprefix("import ") not in _MODULES
    return (
        name in _INSIDE
        or name in _STEPS
        or (hasattr(builtins, name) and name not in _BUILTINS and not _is_exception(name))
        or (bool(_DUNDER.fullmatch(name)) and name not in _PLAIN)
        or (name.startswith("._") and name[1:] not in _PLAIN)
    )


def _is_exception(name: str) -> bool:
    kind = getattr(builtins, name)
    return isinstance(kind, type) and issubclass(kind, BaseException)


def _names(text: str) -> list[str]:
    """Names in the code and in strings with a prefix f; comments and other strings have none.
    An attribute that is private or a step keeps its dot, a module stands behind "import ".
    """
    found: list[str] = []
    try:
        before, statement = "", ""
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            kind, string = token.type, token.string
            if kind in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT) or string in ";:":
                statement = ""
            elif not statement and kind not in (tokenize.NL, tokenize.COMMENT):
                statement = string
            if kind == tokenize.NAME and not keyword.iskeyword(string):
                # model.eval() is a method, not the built-in function; x._grad is private
                step = f".{string}" in _STEPS  # a variable may have that name
                dotted = before == "." and (step or string.startswith("_"))
                dotted |= statement == "case" and step  # the pattern case object(mix=…)
                if (statement, before) in _MODULE_NEXT:
                    found.append(f"import {string}")
                elif before != "." or dotted or string in _INSIDE:
                    found.append("." * dotted + string)
            elif kind == tokenize.STRING and "f" in string[: string.find(string[-1])].lower():
                found += _WORD.findall(string)
            if kind not in (tokenize.NL, tokenize.COMMENT):
                before = string
    # not Python: there will be no points, and what it names stands in it
    except (tokenize.TokenError, SyntaxError, RecursionError, MemoryError, ValueError):
        pass
    return found
