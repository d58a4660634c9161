"""Loaded by the WebUI as an extension of its own in tests: tells the host's state, and breaks the engine on request."""
import hashlib
import random
import time

import numpy as np
import torch
from modules import processing, script_callbacks, sd_models, shared

from lib_sdtrain.events import Step
from lib_sdtrain.ui import hosted
from lib_sdtrain.ui.tab import build_tab

STATE = ("job", "job_count", "interrupted", "skipped", "stopping_generation", "textinfo")
DECODE = processing.decode_latent_batch
REAL = hosted.services().train.engine


class Faulty:
    """The real engine, raising at a step."""

    def __init__(self, step):
        self.step = step

    def __getattr__(self, name):
        return getattr(REAL, name)

    def train(self, settings, place, token):
        for event in REAL.train(settings, place, token):
            yield event
            if isinstance(event, Step) and event.step == self.step:
                raise RuntimeError("CUDA out of memory (not really)")


def weights_hash(model):
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def random_hash():
    numbers = np.random.get_state()[1].tobytes()  # noqa: NPY002 - the state that the WebUI itself uses
    states = (random.getstate(), numbers, torch.get_rng_state().numpy().tobytes())
    return [hashlib.sha256(repr(state).encode()).hexdigest() for state in states]


def host_state():
    model = sd_models.model_data.sd_model
    parameter = next(model.parameters())
    return {
        "checkpoint": model.sd_checkpoint_info.filename, "model": id(model),
        "loaded": len(sd_models.model_data.loaded_sd_models),
        "device": str(parameter.device), "dtype": str(parameter.dtype), "weights": weights_hash(model),
        "training": model.training, "grad": torch.is_grad_enabled(), "threads": torch.get_num_threads(),
        "options": dict(shared.opts.data), "random": random_hash(),
        "state": {name: getattr(shared.state, name) for name in STATE},
    }


def start_time():
    taken = []
    for _ in range(3):  # the least: on a shared processor the same work takes more time now and then
        began = time.thread_time()
        build_tab(hosted.services())
        taken.append(time.thread_time() - began)
    return min(taken)


def fault(step: int = 0):
    hosted.services().train.engine = Faulty(step) if step else REAL


def drawing_fault(on: bool = False):
    """From now on the WebUI's own pictures fail at the last moment, or no longer."""
    processing.decode_latent_batch = failing if on else DECODE


def failing(*args, **kwargs):
    raise RuntimeError("CUDA out of memory (not really)")


def routes(demo, app):
    app.add_api_route("/probe/drawing-fault", drawing_fault, methods=["POST"])
    app.add_api_route("/probe/state", host_state, methods=["GET"])
    app.add_api_route("/probe/start-time", start_time, methods=["GET"])
    app.add_api_route("/probe/fault", fault, methods=["POST"])


script_callbacks.on_app_started(routes)
