"""AUTOMATIC1111 WebUI as a host. Imported only inside it, as are the other `webui_*` files: they import `modules.*`."""
from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from modules import call_queue, devices, paths_internal, sd_models, shared

from lib_sdtrain.events import Event, Phase, Started, Step
from lib_sdtrain.host import webui_live, webui_settings
from lib_sdtrain.host.paths import confined, resolved
from lib_sdtrain.host.protocol import CheckpointEntry, LiveMerge, LiveTensors
from lib_sdtrain.host.standalone import TOYBOX
from lib_sdtrain.model.cards import use_card
from lib_sdtrain.train.allocator import memory_given_back
from lib_sdtrain.train.studio import Studio

T = TypeVar("T")


def kept(name: str, make: Callable[[], T]) -> T:
    """The object of this name that belongs to the WebUI's process: `Reload UI` must not lose a running job."""
    if not hasattr(shared, name):
        setattr(shared, name, make())
    return getattr(shared, name)


@dataclass(frozen=True)
class WebuiHost:
    """The WebUI this code was loaded into."""

    name: str = field(default="webui", init=False)

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the page."""
        return not shared.cmd_opts.webui_is_non_local

    @property
    def hides_folders(self) -> bool:
        """`--hide-ui-dir-config`."""
        return bool(shared.cmd_opts.hide_ui_dir_config)

    def checkpoints(self) -> list[CheckpointEntry]:
        """The WebUI's list, the loaded one first, then toybox."""
        current = self._current_info()
        infos = sorted(sd_models.checkpoints_list.values(), key=lambda info: (info is not current, info.name.lower()))
        return [*(self._entry(info, info is current) for info in infos), TOYBOX]

    def current(self) -> CheckpointEntry | None:
        """The loaded checkpoint, or the one that will be loaded first."""
        info = self._current_info()
        return self._entry(info, loaded=True) if info else None

    def _current_info(self) -> Any:
        model = sd_models.model_data.sd_model
        path = getattr(getattr(model, "sd_checkpoint_info", None), "filename", None)
        # the list is made anew at each refresh, so the loaded model's entry is found again by its file
        by_file = {info.filename: info for info in sd_models.checkpoints_list.values()}
        return by_file.get(path) or sd_models.checkpoint_aliases.get(shared.opts.sd_model_checkpoint)

    @staticmethod
    def _entry(info: Any, loaded: bool) -> CheckpointEntry:
        title = f"{info.title}  (loaded)" if loaded else info.title
        return CheckpointEntry(info.filename, title, Path(info.filename), loaded)

    def device(self) -> str:
        """The WebUI's device. Of several cards `cuda` means in the calling thread the one of `--device-id`."""
        use_card(devices.device)
        return devices.device.type

    @contextmanager
    def exclusive(self, job: str) -> Iterator[None]:
        """Holds the queue lock, so that no picture is made and no checkpoint switched meanwhile."""
        with call_queue.queue_lock:
            use_card(devices.device)
            shared.state.begin(job=job)
            try:
                yield
            finally:
                shared.state.textinfo = None
                shared.state.interrupted = False
                shared.state.end()

    @contextmanager
    def step_aside(self) -> Iterator[None]:
        """Moves the loaded model to the CPU; random numbers go on afterwards as if nothing had been drawn."""
        with sd_models.model_data.lock:  # a model that is being loaded at start is waited for
            model = sd_models.model_data.sd_model
        with ExitStack() as stack:
            stack.enter_context(_random_state_kept())
            stack.callback(_come_back)
            if model is not None:
                sd_models.send_model_to_cpu(model)
            stack.enter_context(memory_given_back(devices.torch_gc))
            yield

    def report(self, event: Event) -> bool:
        """Fills the WebUI's own progress; True when Interrupt was pressed anywhere in the WebUI."""
        state = shared.state
        if isinstance(event, Step):
            state.job_count, state.job_no = 1, 0
            state.sampling_steps, state.sampling_step = event.total, event.step
            state.textinfo = f"SD Train: step {event.step} of {event.total}"
        elif isinstance(event, Started):
            state.job_count, state.sampling_steps, state.sampling_step = 1, event.total, event.step
        elif isinstance(event, Phase):
            name = " ".join(event.name.split())  # the page takes text with line breaks for HTML
            state.textinfo = f"SD Train: {name} {event.done}/{event.total}"
        return state.interrupted or state.stopping_generation

    def output_dir(self) -> Path:
        """outputs/sdtrain in the WebUI's data folder, or what its settings say."""
        return webui_settings.output_dir()

    def checkpoint_dir(self) -> Path | None:
        """Where the WebUI looks for checkpoints."""
        return Path(shared.cmd_opts.ckpt_dir or sd_models.model_path)

    def lora_dir(self) -> Path | None:
        """Where the WebUI's own LoRA extension looks."""
        return Path(shared.cmd_opts.lora_dir)

    def embeddings_dir(self) -> Path | None:
        """Where the WebUI looks for textual-inversion embeddings."""
        return Path(shared.cmd_opts.embeddings_dir)

    def allowed_path(self, path: str, where: str) -> Path:
        """Anything while the WebUI listens to this machine only; else the folders that were given to it."""
        if self.local:
            return resolved(path, where)
        options = shared.cmd_opts
        given = (*options.gradio_allowed_path, options.ckpt_dir, options.lora_dir, options.embeddings_dir)
        roots = (paths_internal.data_path, paths_internal.models_path, TOYBOX.path.parent, *filter(None, given))
        return confined(path, [*map(Path, roots), *webui_settings.allowed_roots()], where)

    def studio(self) -> Studio | None:
        """The WebUI's own txt2img. Forge keeps its models in another way."""
        if not self.shows_live:
            return None
        from lib_sdtrain.host.webui_studio import WebuiStudio

        return WebuiStudio()

    def adopt(self, checkpoint: Path) -> None:
        """A scaled-down model gets a description that names CLIP's files on this machine."""
        from lib_sdtrain.host.clip_folder import adopt

        adopt(checkpoint, Path(paths_internal.models_path) / "sdtrain")
        self.refresh()

    def refresh(self) -> None:
        """Read the checkpoint folders again."""
        sd_models.list_models()

    @property
    def shows_live(self) -> bool:
        """Forge keeps its models in another way."""
        return find_spec("modules_forge") is None

    def live(self) -> LiveMerge | None:
        """What the loaded model shows; None when its weights are its file's."""
        return webui_live.live()

    def apply_live(
        self, merge: LiveMerge, tensors: LiveTensors, keys: Sequence[str] | None, tell: Callable[[int, int], None]
    ) -> None:
        """Change the loaded model in memory."""
        webui_live.apply(merge, tensors, keys, tell)

    def revert_live(self) -> bool:
        """Bring its own weights back."""
        return webui_live.revert()


def _come_back() -> None:
    model = sd_models.model_data.sd_model  # another object, where a preview's refiner has taken its place for a while
    if model is not None:
        sd_models.send_model_to_device(model)


@contextmanager
def _random_state_kept() -> Iterator[None]:
    python, numbers, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002 - the WebUI and its samplers use the global state
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def options() -> Any:
    """The WebUI's command-line options."""
    return shared.cmd_opts
