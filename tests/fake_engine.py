"""An engine that pretends: fast, deterministic steps, real run directories, no torch."""
from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from lib_sdtrain import textfiles
from lib_sdtrain.api.engine import Place
from lib_sdtrain.data.concepts import check_folder, find_pictures
from lib_sdtrain.durable import safe_name
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.events import (
    CancelToken,
    Event,
    Finished,
    Notice,
    Phase,
    Preview,
    Saved,
    Started,
    Step,
    Stopped,
    Validation,
)
from lib_sdtrain.settings.layers import Layer, Resolved, resolve, to_plain
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings


@dataclass
class FakeEngine:
    """`pause` is slept between steps on the token's clock; `at_step` is called with each step before it is told.

    `measured_at` gives the losses of validation by their names, at the beginning, every ten steps, and at the end.
    """

    subject: str = ""
    pause: float = 0.0
    at_step: Callable[[int], None] = lambda step: None
    loss_at: Callable[[int], float] = lambda step: 0.3 / (1 + step / 10) + 0.02 * (step % 5)
    smoothed_at: Callable[[int], float] = lambda step: 0.3 / (1 + step / 10) + 0.04
    measured_at: Callable[[int], Mapping[str, float]] = lambda step: {}
    began: threading.Event = field(default_factory=threading.Event)

    def presets(self) -> Mapping[str, str]:
        return {"toybox-dreambooth": "toybox: try it in a minute"} if self.subject else {}

    def preset(self, name: str) -> Mapping[str, Any]:
        assert name == "toybox-dreambooth"
        concept = {"name": "sks-cup", "instance_dir": self.subject, "instance_prompt": "a photo of sks cup"}
        return {
            "model": {"checkpoint": "toybox"}, "data": {"concepts": [concept]},
            "train": {"length": 40}, "preview": {"prompts": ["a photo of sks cup"], "every": 10},
        }

    def resolve(self, layers: Sequence[Layer], device: str) -> Resolved[RunSettings]:
        return resolve(RunSettings, [Layer(f"sd1 on {device}", {"data.resolution": "128"}), *layers])

    def plan(self, settings: RunSettings, place: Place) -> dict[str, Any]:
        problems = Problems()
        if not settings.data.concepts:
            problems.add("nothing to learn is given", where="data.concepts", fix="give pictures")
        count = 0
        for index, concept in enumerate(settings.data.concepts):
            try:
                folder = check_folder(concept.instance_dir, f"data.concepts.{index}.instance_dir")
            except UserError as error:
                problems.absorb(error)
                continue
            count += len(find_pictures(folder))
            if not find_pictures(folder):
                problems.add(f"{folder} has no picture", where=f"data.concepts.{index}.instance_dir")
        problems.raise_if_any()
        concepts = [{"name": c.name, "images": count, "share": 1.0, "class_images_to_make": 0}
                    for c in settings.data.concepts]  # fmt: skip
        return {
            "images": count, "steps": self._steps(settings), "concepts": concepts,
            "buckets": [{"size": [128, 128], "images": count}],
            "prompts": [settings.data.concepts[0].instance_prompt], "memory_bytes": 612_000_000,
            "memory": {"words": "training: 0.3 GB weights"}, "memory_available": 8_000_000_000,
            "disk_bytes": 123_000_000, "notices": [], "workload": "pretended",
        }

    def fit(self, settings: RunSettings, place: Place, gigabytes: float | None) -> dict[str, Any]:
        wanted = gigabytes or 6.0
        fits = wanted >= 4
        return {"gigabytes": wanted, "fits": fits, "changes": {"train.gradient_checkpointing": True} if fits else {},
                "lines": ["3.5 GB instead of 9.9 GB:", "  slower"] if fits else ["it does not fit"],
                "memory_before": 9_900_000_000, "memory_bytes": 3_500_000_000}  # fmt: skip

    def survey(self, settings: RunSettings, place: Place, token: CancelToken) -> Generator[Event, None, Any]:
        """The real one: it only reads pictures."""
        from lib_sdtrain.api.training import TrainingEngine

        return TrainingEngine().survey(settings, place, token)

    def _steps(self, settings: RunSettings) -> int:
        return settings.train.length.steps(1, 8)

    def train(self, settings: RunSettings, place: Place, token: CancelToken) -> Iterator[Event]:
        run = place.outputs / "runs" / f"20260101-000000-{safe_name(settings.data.concepts[0].name)}"
        number = 1
        while run.exists():
            number += 1
            run = run.with_name(f"20260101-000000-{safe_name(settings.data.concepts[0].name)}-{number}")
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(textfiles.write_yaml(to_plain(settings)), encoding="utf-8")
        yield from self._logged(run, self._go(settings, run, token, 0))

    def resume(
        self, run_dir: Path, changes: Mapping[str, Any], place: Place, token: CancelToken
    ) -> Iterator[Event]:
        settings = build(RunSettings, textfiles.read_mapping(run_dir / "config.yaml"))
        settings = resolve(RunSettings, [Layer("config.yaml", to_plain(settings)), Layer("set", changes)]).settings
        (run_dir / "config.yaml").write_text(textfiles.write_yaml(to_plain(settings)), encoding="utf-8")
        step = json.loads(next((run_dir / "state").glob("*/step.json")).read_text())
        yield from self._logged(run_dir, self._go(settings, run_dir, token, step))

    def _logged(self, run: Path, events: Iterator[Event]) -> Iterator[Event]:
        with (run / "events.jsonl").open("a", encoding="utf-8") as log:
            for event in events:
                log.write(json.dumps(event.as_dict()) + "\n")
                log.flush()
                yield event

    def _go(self, settings: RunSettings, run: Path, token: CancelToken, step: int) -> Iterator[Event]:
        total = self._steps(settings)
        yield Started(job="train", total=total, step=step, run_dir=str(run))
        self.began.set()
        for done in range(4):
            token.check()
            yield Phase(name="encoding pictures", done=done + 1, total=4, unit="pictures")
        yield Notice(text="left out: damaged", where="broken.png")
        yield from self._preview(settings, run, step)
        yield from self._measured(0) if step == 0 else ()
        while step < total and not token.stopping:
            self._wait()
            step += 1
            self.at_step(step)
            yield Step(
                step=step, total=total, samples=step, loss=self.loss_at(step), smoothed=self.smoothed_at(step), lr=1e-6,
                seconds_left=(total - step) * self.pause,
            )
            yield from self._measured(step) if step % 10 == 0 or step == total else ()
            if token.take_save_request():
                yield Saved(file=str(self._save(run, f"model-{step:06d}")), step=step)
            if step % 10 == 0:
                yield from self._preview(settings, run, step)
        if token.stopping_now:
            yield Stopped(step=step, saved=(run / "state").is_dir())
            return
        shutil.rmtree(run / "state", ignore_errors=True)
        (run / "state" / f"{step:06d}").mkdir(parents=True)
        (run / "state" / f"{step:06d}" / "step.json").write_text(json.dumps(step))
        yield Saved(file="state", kind="state", step=step)
        name = settings.save.name or settings.data.concepts[0].name
        folder = Path(settings.save.dir) if settings.save.dir else run / "checkpoints"
        number = "" if step >= total else f"-{step:06d}"
        suffixes = [*(entry["suffix"] for entry in settings.save.also), ""]
        *forms, file = (self._save(run, safe_name(name) + suffix + number, folder) for suffix in suffixes)
        for one in (*forms, file):
            yield Saved(file=str(one), step=step, sha256="0" * 64)
        result = {"run_dir": str(run), "steps": step, "checkpoint": str(file)}
        if forms:
            result["also"] = [{"file": str(form), "sha256": "0" * 64} for form in forms]
        yield Finished(result=result) if step >= total else Stopped(step=step, saved=True, result=result)

    def _measured(self, step: int) -> Iterator[Event]:
        for name, loss in self.measured_at(step).items():
            yield Validation(step=step, loss=loss, name=name)

    def _wait(self) -> None:
        if self.pause:
            threading.Event().wait(self.pause)

    def _save(self, run: Path, name: str, folder: Path | None = None) -> Path:
        folder = folder or run / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.safetensors"
        file.write_bytes(b"fake")
        return file

    def _preview(self, settings: RunSettings, run: Path, step: int) -> Iterator[Event]:
        (run / "samples").mkdir(exist_ok=True)
        for index, prompt in enumerate(settings.preview.prompts):
            name = f"samples/step-{step:06d}-{index:02d}.png"
            Image.new("RGB", (128, 128), (step * 5 % 255, 80, 120)).save(run / name)
            yield Preview(step=step, file=name, index=index, infotext=str(prompt))
