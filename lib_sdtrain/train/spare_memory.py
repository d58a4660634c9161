"""How much memory there is, and how much main memory may still be taken: a copy for convenience never ends a run."""
from __future__ import annotations

from pathlib import Path

import psutil

GROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container's own limit (cgroup v2)."""


def spare_memory(group: Path = GROUP) -> int:
    """Bytes of main memory that are free or can be freed: of this machine, and of the container if there is one."""
    return max(0, min([psutil.virtual_memory().available, *_left_in(group)]))


def whole_memory(device: str, group: Path = GROUP) -> int:
    """Bytes of memory of a device (`cpu`, `cuda`, `mps`), all that is in use included; of a container its limit.

    0 of a CUDA device that this machine does not have: a run may be planned for another one.
    """
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            return 0
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return min([psutil.virtual_memory().total, *_limit(group)])


def _limit(group: Path) -> list[int]:
    """The container's limit; nothing where there is none."""
    limit = _read(group, "memory.max")
    return [int(limit)] if limit and limit != "max" else []


def _read(group: Path, name: str) -> str:
    """A file of the container's; empty where there is no such limit."""
    try:
        return (group / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _left_in(group: Path) -> list[int]:
    """What the container's limit leaves; nothing where there is no limit. Cached files do not count as used."""
    used, facts = (_read(group, name) for name in ("memory.current", "memory.stat"))
    freed = dict(line.split() for line in facts.splitlines()).get("inactive_file", 0)
    return [limit - int(used) + int(freed) for limit in _limit(group) if used]
