"""What is killed: a training run, a merge, a conversion, each in a process of its own."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lib_sdtrain.events import CancelToken, Event
from lib_sdtrain.settings.layers import Layer, resolve


@dataclass(frozen=True)
class Training:
    """A small DreamBooth run: some class pictures must be made first, latents are kept on disk."""

    checkpoint: Path
    pictures: Path
    folder: Path
    steps: int = 6

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "runs" / "run"

    def events(self) -> Iterator[Event]:
        """Begin, or go on where the last state was saved, as a person would."""
        from lib_sdtrain.settings.run import RunSettings
        from lib_sdtrain.train.loop import train
        from lib_sdtrain.train.resume import resume

        if (self.run / "config.yaml").exists():
            return resume(self.run, device="cpu")
        settings = resolve(RunSettings, [Layer("test", self.values())]).settings
        return train(settings, run_dir=self.run, outputs=self.folder, device="cpu")

    def values(self) -> dict[str, object]:
        """The settings, nested as in YAML."""
        return {
            "model": {"checkpoint": str(self.checkpoint)},
            "data": {
                "resolution": "64", "cache_latents": "disk", "flip_p": 0.5, "shuffle_caption": True,
                "concepts": [{
                    "name": "sks", "instance_dir": str(self.pictures), "instance_prompt": "a, photo, of, sks dog",
                    "class_dir": str(self.folder / "class"), "class_prompt": "a photo of a dog", "num_class_images": 2,
                }],
            },
            "train": {"length": self.steps, "batch_size": 2, "learning_rate": 1e-4, "lr_scheduler": "cosine"},
            "preview": {"prompts": [{"prompt": "a dog", "steps": 1, "width": 64, "height": 64, "seed": 1}], "every": 4},
            "save": {"every": 3, "state_every": 2},
        }

    def results(self) -> dict[str, bytes]:
        """Name -> content of every file that the run owes its user."""
        files = [*self.run.glob("checkpoints/*"), *self.run.glob("samples/*"), *(self.folder / "class").glob("*")]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in files if path.name[0] != "."}


@dataclass(frozen=True)
class Merge:
    """Two checkpoints by block, over a file that stands there already."""

    parents: tuple[Path, Path]
    out: Path

    def events(self) -> Iterator[Event]:
        """Merge."""
        from lib_sdtrain.merge import merge
        from lib_sdtrain.settings.merge import MergeSettings

        settings = MergeSettings(a=str(self.parents[0]), b=str(self.parents[1]), alpha=0.3, out=str(self.out))
        return merge(settings, CancelToken())


@dataclass(frozen=True)
class Conversion:
    """A checkpoint cast to bf16, over a file that stands there already."""

    source: Path
    out: Path

    def events(self) -> Iterator[Event]:
        """Convert."""
        from lib_sdtrain.model.convert import convert
        from lib_sdtrain.settings.convert import ConvertSettings

        return convert(ConvertSettings(file=str(self.source), out=str(self.out), dtype="bf16"), CancelToken())


Work = Training | Merge | Conversion
