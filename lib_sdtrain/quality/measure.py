"""`bench quality`: every number of toybox's quality from fixed seeds, in one go."""
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Started
from lib_sdtrain.model.build import LoadedModel
from lib_sdtrain.quality import dreambooth, prompts, spread
from lib_sdtrain.quality.drawing import Drawn, draw, open_model
from lib_sdtrain.quality.sheets import write_sheets
from lib_sdtrain.quality.showcase import hires_sheet, merge_sheet
from lib_sdtrain.toybox.judge import Judge, check, shipped_judge
from lib_sdtrain.toybox.make.autoencoder import HELD_OUT_PICTURES, psnr
from lib_sdtrain.toybox.make.diffusion import PICTURES
from lib_sdtrain.toybox.make.pictures import HELD_OUT_SEED
from lib_sdtrain.toybox.scene import any_scene
from lib_sdtrain.toybox.world import render
from lib_sdtrain.train.starting import pick_device

JUDGED = 600
WITH = "with class pictures"


@dataclass(frozen=True)
class Row:
    """One number, what it is compared with and from how many pictures it comes."""

    ours: float
    baseline: float
    runs: int
    against: str

    @property
    def ratio(self) -> float | None:
        """ours / baseline; None where the baseline is 0."""
        return self.ours / self.baseline if self.baseline else None


@dataclass
class Report:
    """What has been measured so far, and the pictures that it was measured on."""

    rows: dict[str, Row] = field(default_factory=dict)
    drawn: dict[str, list[Drawn]] = field(default_factory=dict)
    checkpoints: dict[str, Path] = field(default_factory=dict)

    def add(self, name: str, ours: float, baseline: float, runs: int, against: str) -> None:
        """Note a number."""
        self.rows[name] = Row(float(ours), float(baseline), runs, against)

    def document(self) -> dict[str, object]:
        """JSON-ready."""
        return {
            name: {key: round(value, 4) if isinstance(value, float) else value
                   for key, value in {**asdict(row), "ratio": row.ratio}.items()}
            for name, row in self.rows.items()
        }  # fmt: skip


def bench_quality(
    folder: Path, token: CancelToken, checkpoint: str = "toybox", pictures: Path | None = None
) -> Iterator[Event]:
    """Measure `checkpoint` (toybox, or another training of it) and DreamBooth on it; runs go into `folder`.

    `pictures` is where contact sheets of what was judged go. Ends with `Finished`: name -> ours, baseline, ratio,
    runs (pictures), against. Raises `Cancelled`.
    """
    yield Started(job="bench quality")
    began, report, judge, device = time.monotonic(), Report(), shipped_judge(), pick_device()
    model = open_model(checkpoint, device)
    yield from _certain(report, judge, model.vae)
    yield from _prompts(report, model, judge, token)
    yield from _spread(report, token)
    yield from _dreambooth(report, folder, judge, checkpoint, device, token)
    report.add("seconds", time.monotonic() - began, 0, 1, "the whole measurement")
    if pictures:
        trained = str(report.checkpoints["with_prior"])
        yield from write_sheets(report.drawn, pictures)
        yield from merge_sheet(checkpoint, trained, pictures, device, token)
        yield from hires_sheet(trained, pictures, device, token)
    yield Finished(result=report.document())


def _certain(report: Report, judge: Judge, vae: object) -> Iterator[Event]:
    """The judge on renderings, and the autoencoder."""
    yield Phase(name="judging renderings", total=1)
    for name, share in check(judge, JUDGED).items():
        report.add(f"judge_{name}", share, 0.97, JUDGED, "at least, on renderings it never saw")
    pictures = np.stack([np.asarray(render(any_scene(HELD_OUT_SEED, i))) for i in range(HELD_OUT_PICTURES)])
    report.add("reconstruction_db", psnr(vae, pictures), 28.0, len(pictures), "at least, PSNR on held-out renderings")
    yield Phase(name="judging renderings", done=1, total=1)


def _prompts(report: Report, model: LoadedModel, judge: Judge, token: CancelToken) -> Iterator[Event]:
    for key, held_out, wanted in (("seen", False, 0.9), ("held_out", True, 0.7)):
        scenes, drawn = yield from prompts.measure(model, judge, held_out, token)
        report.drawn[key] = drawn
        for name, share in prompts.shares(scenes, drawn).items():
            report.add(f"prompt_{key}_{name}", share, wanted, _count(drawn), "at least")


def _spread(report: Report, token: CancelToken) -> Iterator[Event]:
    drawn, scenes = report.drawn["seen"], prompts.prompted_scenes(held_out=False)
    like = spread.renderings_like(scenes, len(drawn[0].pictures))
    ours = spread.diversity([one.pictures for one in drawn])
    report.add("diversity", ours, spread.diversity(like), _count(drawn), "renderings of the same captions")
    training = yield from spread.training_points(PICTURES, token)
    own, fresh = spread.memorisation(drawn, [picture for group in like for picture in group], training)
    report.add("distance_to_training", own, fresh, _count(drawn), "renderings that were not trained on")


def _dreambooth(
    report: Report, folder: Path, judge: Judge, base: str, device: str, token: CancelToken
) -> Iterator[Event]:
    """Three models: the base, and two trainings of it by the preset, with and without class pictures."""
    seconds, checkpoint = 0.0, base
    for key in ("before", "with_prior", "without_prior"):
        if key != "before":
            trained = yield from dreambooth.train_subject(folder / key, base, key == "with_prior", token)
            report.checkpoints[key] = trained.checkpoint
            checkpoint, seconds = str(trained.checkpoint), max(seconds, trained.seconds)
        model = open_model(checkpoint, device)
        for what, wanted in (("subject", dreambooth.subject_prompts()), ("class", dreambooth.class_prompts())):
            name = f"{what} {key.replace('_', ' ')}"
            report.drawn[name] = yield from draw(model, judge, wanted, f"drawing {name}", token)
    drawn = report.drawn
    subject = {key: dreambooth.fidelity(drawn[f"subject {key}"]) for key in ("before", "with prior", "without prior")}
    kept = {key: dreambooth.retention(drawn[f"class {key}"]) for key in ("before", "with prior", "without prior")}
    subjects, classes = _count(drawn["subject before"]), _count(drawn["class before"])
    report.add("subject_before", subject["before"], 0.1, subjects, "at most")
    report.add("subject_trained", subject["with prior"], 0.8, subjects, "at least")
    report.add("subject_without_prior", subject["without prior"], subject["with prior"], subjects, WITH)
    report.add("class_kept", kept["with prior"], kept["before"], classes, "before training, within 0.05")
    report.add("class_kept_without_prior", kept["without prior"], kept["with prior"], classes, WITH)
    report.add("training_seconds", seconds, 300, 1, "at most")


def _count(drawn: Sequence[Drawn]) -> int:
    return sum(len(one.pictures) for one in drawn)
