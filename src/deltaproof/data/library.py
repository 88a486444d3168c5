"""Documented functions of Python's standard library, read from its sources and never imported."""

import ast
import hashlib
import os
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_PER_FILE = 40
"""Functions taken of one file, so that no module stands for the library."""
LARGEST_FILE_BYTES = 150_000
"""Larger files (tkinter, decimal) take longer to parse than their 40 functions are worth."""
LONGEST_CODE = 120
"""Letters of code that are kept: about what the demo reads, which is at most 48 tokens for sentence and code."""
LONGEST_SENTENCE = 160
_NOT_LIBRARY = {"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "dist-packages", "ensurepip"}
_SENTENCE = re.compile(r"(.{15,}?[.!?])(?:\s|$)")


@dataclass(frozen=True)
class Function:
    """One documented function."""

    place: str
    """Such as `argparse.py:123`."""
    sentence: str
    """The first sentence of its docstring."""
    code: str
    """Name, arguments and body without the docstring, on one line."""

    @property
    def key(self) -> bytes:
        """Orders functions as if at random."""
        return shuffled(self.place)


def shuffled(text: str) -> bytes:
    """A sort key that depends on the text alone and says nothing: its SHA-256."""
    return hashlib.sha256(text.encode()).digest()


def library_files(root: Path) -> list[Path]:
    """Source files of the library at `root`, in a shuffled order that depends on their names only."""
    files = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in _NOT_LIBRARY]  # not walked through at all
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(files, key=lambda path: shuffled(path.relative_to(root).as_posix()))


def functions_of(root: Path, path: Path) -> list[Function]:
    """Documented functions of one file, at most `MOST_PER_FILE`, in a shuffled order; none where it does not parse."""
    raw = path.read_bytes()
    if len(raw) > LARGEST_FILE_BYTES or b'"""' not in raw:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in library strings are not the user's concern
            tree = ast.parse(raw)
        lines = raw.decode("utf-8").split("\n")
    except (SyntaxError, ValueError):
        return []
    place = path.relative_to(root).as_posix()
    found = [function for node in _definitions(tree) if (function := _function(place, node, lines)) is not None]
    return sorted(found, key=lambda function: function.key)[:MOST_PER_FILE]


def _definitions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions defined within. `ast.walk` would look into every expression, where none can be, in twice the time."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, field, ()):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield child
            yield from _definitions(child)


def _function(place: str, node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> Function | None:
    """The function, or None where sentence or body say too little to tell whether they belong together."""
    sentence = _first_sentence(ast.get_docstring(node) or "")
    if len(sentence.split()) < 4 or len(sentence) > LONGEST_SENTENCE or len(node.body) < 2:
        return None
    body = " ".join(line.strip() for line in _body(node, lines) if not line.strip().startswith("#"))
    if len(body) < 20:
        return None
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = ", ".join(argument.arg for argument in arguments if argument.arg not in ("self", "cls"))
    return Function(f"{place}:{node.lineno}", sentence, f"def {node.name}({names}): {body}"[:LONGEST_CODE])


def _first_sentence(docstring: str) -> str:
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    match = _SENTENCE.match(paragraph)
    return match.group(1) if match else paragraph


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> list[str]:
    """Lines of the function after its docstring."""
    source = "\n".join(lines[node.body[0].end_lineno : node.end_lineno])
    return [line for line in textwrap.dedent(source).split("\n") if line.strip()]
