"""The merges that were made here: a line each, the newest first, with all that fills the form again."""
from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.durable import write_atomically
from lib_sdtrain.model.hashes import autov2
from lib_sdtrain.textfiles import parse_json

KEPT = 200


@dataclass(frozen=True)
class History:
    """Entries in a file of JSON lines: `time`, `out`, `sha256`, `method`, `seconds`, `bytes`, `form`, `report`."""

    file: Path

    def entries(self) -> list[dict[str, Any]]:
        """The newest first; lines that cannot be read are passed over."""
        if not self.file.is_file():
            return []
        lines = self.file.read_text("utf-8", "replace").splitlines()
        return [entry for entry in map(_entry, reversed(lines)) if entry]

    def add(self, form: Mapping[str, Any], document: Mapping[str, Any], times: Sequence[tuple[float, int]]) -> None:
        """Remember a merge: its form, its document, and how fast it wrote (seconds since the epoch, bytes)."""
        seconds, count = document["seconds"], Path(document["out"]).stat().st_size
        if len(times) > 1 and times[-1][0] > times[0][0]:
            (began, first), (ended, last) = times[0], times[-1]
            seconds, count = ended - began, last - first
        entry = {
            "time": time.time(), "out": document["out"], "sha256": document["sha256"], "method": document["method"],
            "seconds": round(seconds, 3), "bytes": count, "form": dict(form), "report": document["report"],
        }
        lines = [json.dumps(one, ensure_ascii=False) for one in reversed(self.entries()[: KEPT - 1])]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, "\n".join([*lines, json.dumps(entry, ensure_ascii=False), ""]).encode())

    def labels(self) -> list[str]:
        """What people choose from, the newest first."""
        return [label(entry) for entry in self.entries()]

    def labelled(self, text: str) -> dict[str, Any] | None:
        """The entry of a label."""
        return next((entry for entry in self.entries() if label(entry) == text), None)


def label(entry: Mapping[str, Any]) -> str:
    """File name, AutoV2 hash, and when."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["time"]))
    return f"{Path(entry['out']).name} [{autov2(entry['sha256'])}] {when}"


def _entry(line: str) -> dict[str, Any] | None:
    try:
        found = parse_json(line)
    except ValueError:
        return None
    needed = {"time", "out", "sha256", "method", "seconds", "bytes", "form", "report"}
    return found if isinstance(found, dict) and needed <= set(found) else None
