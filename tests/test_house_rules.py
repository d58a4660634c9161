"""What keeps the code readable: short files and functions, no swallowed errors, nothing half done."""
from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST = 0.9          # the share of files and functions that stays below the comfortable length
LONGEST_FILE, COMFORTABLE_FILE = 400, 300
LONGEST_FUNCTION, COMFORTABLE_FUNCTION = 70, 40
MOST_POSITIONAL = 7
MAY_PRINT = ("install.py", "lib_sdtrain/cli/", "lib_sdtrain/toybox/make/", "lib_sdtrain/__main__.py")
SOURCES = ("*.py", "lib_sdtrain/**/*.py", "scripts/*.py")
TEXTS = (*SOURCES, "tests/**/*.py", "javascript/*.js", "*.md", "*.toml", ".ci/*", ".requirements/*")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def paths(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file())


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(kind: type | tuple, *patterns: str) -> Iterator[tuple[str, ast.AST]]:
    """(place, node) of every syntax node of a kind."""
    for path in paths(*patterns):
        yield from ((f"{name_of(path)}:{node.lineno}", node) for node in ast.walk(tree(path)) if isinstance(node, kind))


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_files_are_short():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in paths(*TEXTS[:4])}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}
    assert sum(length <= COMFORTABLE_FILE for length in lengths.values()) >= MOST * len(lengths)


def test_functions_are_short():
    lengths = {f"{place} {node.name}": node.end_lineno - node.lineno + 1
               for place, node in nodes(FUNCTIONS, *SOURCES, "tests/**/*.py")}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}
    assert sum(length <= COMFORTABLE_FUNCTION for length in lengths.values()) >= MOST * len(lengths)


def test_functions_take_few_positional_arguments():
    assert [f"{place} {node.name}" for place, node in nodes(FUNCTIONS, *SOURCES)
            if len(node.args.posonlyargs + node.args.args) > MOST_POSITIONAL] == []


def test_no_error_is_swallowed():
    """A handler of everything passes it on, at least as the cause of another error."""
    def catches_all(handler: ast.ExceptHandler) -> bool:
        caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in caught)

    assert [place for place, handler in nodes(ast.ExceptHandler, *SOURCES)
            if catches_all(handler) and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))] == []


def test_nothing_is_a_stub():
    def empty(function: Function) -> bool:
        body = [node for node in function.body
                if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                        and isinstance(node.value.value, str))]
        return all(isinstance(node, ast.Raise) and "NotImplemented" in ast.dump(node) for node in body[:1]) and \
            len(body) == 1

    assert [f"{place} {node.name}" for place, node in nodes(FUNCTIONS, *SOURCES) if empty(node)] == []


def test_only_the_command_line_prints():
    calls = [(place, node) for place, node in nodes(ast.Call, *SOURCES) if getattr(node.func, "id", "") == "print"]
    assert [place for place, _ in calls if not place.startswith(MAY_PRINT)] == []


def test_there_are_no_globals():
    assert [place for place, _ in nodes(ast.Global, *SOURCES)] == []


def test_every_public_function_and_class_of_the_package_says_what_it_does():
    missing = []
    for path in paths("lib_sdtrain/**/*.py"):
        missing += [] if ast.get_docstring(tree(path)) or not tree(path).body else [name_of(path)]
        missing += [f"{name_of(path)}:{node.lineno} {node.name}" for node in tree(path).body
                    if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_")
                    and not ast.get_docstring(node)]
    assert missing == []


def test_the_linter_has_nothing_to_say():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "."],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_texts_speak_of_the_product_only():
    """No path of somebody's machine, no number of a tracker, nothing left for later."""
    machine = re.compile(r"(?<![\w.~$}])/(?:home|root|work|Users)/\w|\b[A-Z]:\\\\?Users\\")
    later = re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b|\bissue #?\d")
    found = []
    for path in paths(*TEXTS):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if machine.search(line) or later.search(line):
                found.append(f"{name_of(path)}:{number} {line.strip()}")
    assert found == []


def test_files_that_differ_are_told_in_short():
    """On CI pytest would tell every line of two files of megabytes, for hours; conftest.py takes that away."""
    with pytest.raises(AssertionError) as said:
        assert b"a" * 20_000 == b"b" * 20_000
    assert len(str(said.value)) < 2000
