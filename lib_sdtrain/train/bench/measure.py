"""Our `train` and the plain loop of stock trainers in turn, a process each: seconds a step, start, memory."""
from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Started
from lib_sdtrain.merge.bench.models import write_model
from lib_sdtrain.model.checkpoint import open_checkpoint
from lib_sdtrain.model.family import PUBLISHED
from lib_sdtrain.presets import TOYBOX
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.train.bench.watch import WARM_UP, Watched, watch

OURS, BASELINE = "ours", "baseline"


@dataclass(frozen=True)
class TrainBench:
    """What is measured: `runs` processes of each side, of `steps` counted steps each.

    `model` is a family (random weights of its size), toybox, or a checkpoint's path; `resolution` in pixels.
    """

    model: str = "toybox"
    method: str = "full"
    text_encoder: bool = True
    resolution: int = 128
    steps: int = 15
    runs: int = 5

    @property
    def name(self) -> str:
        """What its row is called."""
        parts = "unet_text" if self.text_encoder else "unet"
        return f"train_{Path(self.model).stem}_{self.method}_{parts}_{self.resolution}px"


def bench_train(bench: TrainBench, token: CancelToken, folder: Path | None = None) -> Iterator[Event]:
    """Train on both sides with the same settings, a picture and one of its class a step; ends with `Finished`.

    Temporary files go below `folder`. Raises `UserError` for what cannot be measured.
    """
    for name in ("steps", "runs"):
        if getattr(bench, name) < 1:
            raise UserError("at least one is needed", where=f"--{name}")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    yield Started(job="bench", total=bench.runs)
    with tempfile.TemporaryDirectory(prefix="sdtrain-bench-", dir=folder) as temporary:
        place = Path(temporary)
        checkpoint = bench.model
        if checkpoint in PUBLISHED:
            yield Phase(name="writing a random model", done=0, total=1, unit="models")
            checkpoint = str(place / "model.safetensors")
            write_model(Path(checkpoint), bench.model, 0)
        settings = settings_of(bench, checkpoint)
        config = place / "config.yaml"
        config.write_text(textfiles.write_yaml(settings), encoding="utf-8")
        found: dict[str, list[Watched]] = {OURS: [], BASELINE: []}
        for number in range(bench.runs):
            for side in sorted(found, reverse=number % 2 == 0):
                yield Phase(name="bench", done=number, total=bench.runs, unit="rounds")
                run = place / "run"
                length = bench.steps + WARM_UP
                cache = {"XDG_CACHE_HOME": str(place / "cache")}
                watched = yield from watch(side, *_command(side, config, run), length, cache, token)
                found[side].append(watched)
                shutil.rmtree(run)
    yield Finished(result={bench.name: document(found)})


def settings_of(bench: TrainBench, checkpoint: str) -> dict[str, Any]:
    """The settings of the run on both sides. Raises `UserError` for wrong ones, and a model that is not for this."""
    if open_checkpoint(checkpoint).family.unet.in_channels != 4:
        raise UserError("the baseline trains no inpainting model", where="--model", fix="choose another model")
    settings = {
        "model": {"checkpoint": checkpoint},
        "method": {
            "kind": bench.method, "train_text_encoder": bench.text_encoder, "train_text_encoder_2": False, "rank": 4,
            "alpha": 4,
        },
        "data": {"resolution": str(bench.resolution), "concepts": [{
            "name": "bench", "instance_dir": str(TOYBOX / "subject"), "instance_prompt": "a photo of sks cat",
            "class_dir": str(TOYBOX / "class"), "class_prompt": "a photo of a cat", "num_class_images": 24,
        }]},
        "train": {
            "length": bench.steps + WARM_UP, "batch_size": 1, "learning_rate": 1e-5, "optimizer": "adamw",
            "mixed_precision": "no",
        },
        "save": {"state_every": None},
    }
    build(RunSettings, settings)
    return settings


def _command(side: str, config: Path, run: Path) -> tuple[list[str], Path]:
    """What a side is started with, and where it tells of its steps."""
    events, python = run / "events.jsonl", [sys.executable, "-m"]
    if side == OURS:
        return [*python, "lib_sdtrain", "train", "--config", str(config), "--run-dir", str(run)], events
    return [*python, "lib_sdtrain.train.bench.loop", str(config), str(events)], events


def document(found: Mapping[str, Sequence[Watched]]) -> dict[str, Any]:
    """`ours`, `baseline` (medians over the runs of each run's median seconds a step) and their `ratio`; `runs`; and of
    both sides the fastest step, seconds of processor a step, seconds to the end of the first step (medians), peak
    anonymous memory in bytes (the largest), page faults a step. What the system does not tell is None.
    """
    medians = {side: statistics.median(statistics.median(run.seconds) for run in runs) for side, runs in found.items()}
    processor = {side: _median([run.processor for run in runs]) for side, runs in found.items()}
    known = processor[OURS] and processor[BASELINE]
    row: dict[str, Any] = {
        **{side: round(seconds, 4) for side, seconds in medians.items()},
        "ratio": round(medians[OURS] / medians[BASELINE], 3), "runs": len(found[OURS]),
        "steps": len(found[OURS][0].seconds),
        "processor_ratio": round(processor[OURS] / processor[BASELINE], 3) if known else None,
    }
    for side, runs in found.items():
        row |= {
            f"fastest_{side}": round(min(min(run.seconds) for run in runs), 4),
            f"processor_{side}": processor[side],
            f"first_step_{side}": round(statistics.median(run.first for run in runs), 2),
            f"memory_{side}": max(run.anonymous for run in runs),
            f"faults_{side}": _median([run.faults for run in runs]),
        }
    return row


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 4) if known else None
