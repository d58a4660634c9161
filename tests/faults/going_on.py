"""Kill, look at what stands on the disk, go on, until the work is done."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lib_sdtrain.train.state import newest_state
from tests.faults import crash
from tests.faults.work import Conversion, Merge, Training


@dataclass(frozen=True)
class Kill:
    """When to kill: after `seconds`, or at a change of the file system."""

    seconds: float | None = None
    change: int = 0


def train_through(work: Training, kills: Iterable[Kill], expected: dict[str, bytes]) -> int:
    """Kill a run as often as said, going on each time, then let it come to its end. How many kills struck.

    `expected` are the files of an undisturbed run. Raises `AssertionError` when any file under its final name differs
    from them at any time, when a state cannot be read, or when something is missing at the end.
    """
    struck = 0
    for kill in kills:
        ended = crash.run(work, work.folder, seconds=kill.seconds, change=kill.change)
        check_run(work, expected)
        if ended is not None:
            break
        struck += 1
    else:
        assert crash.run(work, work.folder) is not None
    check_run(work, expected)
    assert expected.keys() == work.results().keys(), "not everything is there at the end"
    return struck


def check_run(work: Training, expected: dict[str, bytes]) -> None:
    """What stands under a final name is what an undisturbed run writes, and there is a state that can be read."""
    for name, content in work.results().items():
        assert content == expected[name], f"{name} differs from the undisturbed run's"
    state = newest_state(work.run / "state")
    if state:
        assert state.facts["step"] <= work.steps


def remake_through(work: Merge | Conversion, kills: Iterable[Kill], former: bytes, new: bytes) -> int:
    """Kill a merge or conversion that replaces `former`: the old file or the new one stands. Kills that struck."""
    struck = 0
    for kill in kills:
        work.out.write_bytes(former)
        ended = crash.run(work, work.out.parent, seconds=kill.seconds, change=kill.change)
        assert work.out.read_bytes() in ((former, new) if ended is None else (new,))
        struck += ended is None
    return struck
