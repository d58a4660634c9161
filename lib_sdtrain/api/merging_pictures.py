"""The same prompts and seeds drawn by several models, one row each, to see what a merge did."""
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Preview, Saved, Started

Row = tuple[str, str]
"""What a row is called, and its checkpoint."""


@dataclass(frozen=True)
class PicturePlan:
    """What to draw: prompts (one a line), what they share, and the merged file. `size` 0 is the model's own."""

    prompts: str
    negative_prompt: str = ""
    seed: int = 1
    steps: int = 20
    size: int = 0
    clip_skip: int = 1
    merged: str = ""

    def requests(self, resolution: int) -> tuple[Any, ...]:
        """A request a prompt, each with a seed of its own. Raises `UserError` when there is none."""
        from lib_sdtrain.settings.parse import build
        from lib_sdtrain.settings.sample import SampleRequest

        lines = [line.strip() for line in self.prompts.splitlines() if line.strip()]
        if not lines:
            raise UserError("there is nothing to draw", where="pictures_prompts", fix="write a prompt, one a line")
        side = self.size or resolution
        shared = {
            "negative_prompt": self.negative_prompt, "steps": self.steps, "sampler_name": "Euler a",
            "width": side, "height": side, "clip_skip": self.clip_skip, "randn_source": "CPU",
        }
        numbered = enumerate(lines)
        return tuple(build(SampleRequest, {**shared, "prompt": line, "seed": self.seed + n}) for n, line in numbered)


def draw_rows(rows: Sequence[Row], requests: Sequence[Any], folder: Path, token: CancelToken) -> Iterator[Event]:
    """Previews, numbered by row (`step`) and prompt (`index`); ends with `Finished`: rows, prompts, seconds."""
    from lib_sdtrain.sample import sample
    from lib_sdtrain.settings.sample import SampleSettings

    began = time.monotonic()
    place = folder / time.strftime("%Y%m%d-%H%M%S")
    yield Started(job="merge-pictures", total=len(rows) * len(requests), run_dir=str(place))
    for number, (name, checkpoint) in enumerate(rows):
        done = 0
        out = place / str(number)
        for event in sample(SampleSettings(checkpoint=checkpoint, out=str(out), requests=tuple(requests)), token):
            if isinstance(event, Saved):
                file = Path(event.file).relative_to(place).as_posix()
                yield Preview(step=number, index=done, file=file, infotext=f"{name}: {requests[done].prompt}")
                done += 1
            elif isinstance(event, Phase):
                yield Phase(name=f"{name}: {event.name}", done=event.done, total=event.total, unit=event.unit)
    yield Finished(result={
        "rows": [name for name, _ in rows], "prompts": [request.prompt for request in requests],
        "seconds": round(time.monotonic() - began, 1),
    })  # fmt: skip
