"""How much main memory may still be taken, so that a copy made for convenience never ends a run."""
from __future__ import annotations

from pathlib import Path

import psutil

GROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container's own limit (cgroup v2)."""


def spare_memory(group: Path = GROUP) -> int:
    """Bytes of main memory that are free or can be freed: of this machine, and of the container if there is one."""
    return max(0, min([psutil.virtual_memory().available, *_left_in(group)]))


def _left_in(group: Path) -> list[int]:
    """What the container's limit leaves; nothing where there is no limit. Cached files do not count as used."""
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        facts = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:
        return []
    return [] if limit == "max" else [int(limit) - used + int(facts.get("inactive_file", 0))]
