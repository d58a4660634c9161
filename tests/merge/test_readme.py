"""The README's Merge section says what the program does."""
from __future__ import annotations

from pathlib import Path

from lib_sdtrain.merge.blocks import CONVENTIONS
from lib_sdtrain.merge.methods import all_methods
from lib_sdtrain.settings.merge import METHODS

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_every_method_stands_in_the_readme_with_its_formula():
    rows = [f"| `{name}` | {all_methods()[name].formula.replace('|', chr(92) + '|')} |" for name in METHODS]
    assert "\n".join(rows) in README


def test_every_convention_stands_in_the_readme():
    assert [name for name in CONVENTIONS if f"| `{name}` " not in README] == []
