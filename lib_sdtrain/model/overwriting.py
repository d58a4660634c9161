"""A result may not take the place of what it is made of."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lib_sdtrain.errors import Problems

_FIX = "choose another name"


def check_result(out: Path, read: Iterable[Path], problems: Problems, where: str = "out") -> None:
    """Add to `problems` each file or folder of `read` that writing `out`, or the `.yaml` beside it, would change."""
    target = out.resolve()
    side = target.with_suffix(".yaml")
    for path in dict.fromkeys(read):
        source = path.resolve()
        if source == target:
            problems.add(f"{out} is one of the files that are read", where=where, fix=_FIX)
        elif source in target.parents:
            problems.add(f"{out} lies in {path.name}, which is one of the models that are read", where=where, fix=_FIX)
        elif source == side:
            problems.add(f"{path} is read, and the result's own description takes that name", where=where, fix=_FIX)
