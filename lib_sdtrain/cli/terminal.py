"""What a person at a terminal sees of a job: one live line on a terminal, plain lines elsewhere."""
from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from lib_sdtrain.events import Event, Notice, Phase, Preview, Saved, Started, Step, Validation

BAR = 24
MEGABYTE, GIGABYTE = 10**6, 10**9
PLAIN_SECONDS = 5.0
LIVE_SECONDS = 0.1


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(per_second: float, unit: str) -> str:
    """`2.1 steps/s`, or `3.4 s/step` when slow; bytes as `850 MB/s`."""
    if unit == "bytes":
        return f"{per_second / MEGABYTE:.0f} MB/s"
    if per_second >= 1 or per_second <= 0:
        return f"{per_second:.1f} {unit}/s"
    return f"{1 / per_second:.1f} s/{unit.removesuffix('s')}"


def amount(done: int, total: int, unit: str) -> str:
    """`12/40 pictures`; bytes as `1.2/2.1 GB`."""
    if unit != "bytes":
        return f"{done}/{total} {unit}"
    size, name = (GIGABYTE, "GB") if total >= GIGABYTE else (MEGABYTE, "MB")
    return f"{done / size:.1f}/{total / size:.1f} {name}"


def bar(done: int, total: int) -> str:
    """A bar of fixed width."""
    filled = BAR * done // total if total else 0
    return "#" * filled + "." * (BAR - filled)


@dataclass
class Terminal:
    """Writes events to a stream. Live lines are rewritten in place when the stream is a terminal."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _phase: str = ""
    _since: float = 0.0
    _first: int = 0
    _shown: float = 0.0
    _live: bool = False

    def show(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, Phase):
            self._progress(event.name, event.done, event.total, event.unit, "")
        elif isinstance(event, Step):
            self._progress("training", event.step, event.total, "steps", f"loss {event.smoothed:.4f}")
        elif isinstance(event, Notice):
            self.line(f"note: {event}")
        elif isinstance(event, Saved) and event.kind in ("checkpoint", "lora", "embedding"):
            self.line(f"saved {event.file}" + (f"  [{event.sha256[:10]}]" if event.sha256 else ""))
        elif isinstance(event, Preview):
            self.line(f"preview {event.file}")
        elif isinstance(event, Validation):
            self.line(f"{event.name} loss {event.loss:.4f} at step {event.step}")
        elif isinstance(event, Started) and event.run_dir:
            begun = f", going on at step {event.step}" if event.step else ""
            self.line(f"run {event.run_dir}: {event.total} steps{begun}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        self.stream.write(text + "\n")
        self.stream.flush()

    def _progress(self, name: str, done: int, total: int, unit: str, extra: str) -> None:
        now = time.monotonic()
        if name != self._phase:
            self._phase, self._since, self._first, self._shown = name, now, done, 0.0
        terminal = self.stream.isatty()
        ends = done >= total
        if not ends and now - self._shown < (LIVE_SECONDS if terminal else PLAIN_SECONDS):
            return
        self._shown = now
        speed = (done - self._first) / max(now - self._since, 1e-6)
        parts = [f"{name} {amount(done, total, unit)}" if unit else name]
        if speed > 0 and unit:
            parts.append(rate(speed, unit))
            if not ends:
                parts.append(f"{duration((total - done) / speed)} left")
        if extra:
            parts.append(extra)
        text = "  ".join(parts)
        if not terminal:
            self.line(text)
            return
        self._clear()
        self.stream.write(f"{bar(done, total)}  {text}"[:160])
        self.stream.flush()
        self._live = True
        if ends:
            self.stream.write("\n")
            self._live = False

    def _clear(self) -> None:
        if self._live:
            self.stream.write("\r\x1b[K")
            self._live = False
