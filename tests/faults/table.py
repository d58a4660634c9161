"""README's table of faults, made from the tests that carry `@pytest.mark.fault("what you see")`.

`python -m tests.faults.table` writes it anew. The first column is the test's own name.
"""
from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- faults -->\n", "<!-- /faults -->\n"


def rows() -> Iterator[tuple[str, str, str]]:
    """What is tested, what the user sees, what is lost, in the order of the files."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    lost = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}.get("lost", "nothing")
                    yield node.name.removeprefix("test_").replace("_", " "), ast.literal_eval(mark.args[0]), lost


def table() -> str:
    """Markdown."""
    lines = ["| tested | what you see | what is lost |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows())]) + "\n"


def write() -> None:
    """Put the table between README's two marks."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write()
