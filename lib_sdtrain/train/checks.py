"""Mistakes in a run's settings that can be told before anything is read or made. Collected, not raised one by one."""
from __future__ import annotations

from lib_sdtrain.errors import Problems
from lib_sdtrain.settings.run import Concept, RunSettings
from lib_sdtrain.settings.run_data import OWN_PICTURES
from lib_sdtrain.settings.run_method import FULL
from lib_sdtrain.settings.run_outputs import KEEP
from lib_sdtrain.train.backward_steps import check_backward_steps
from lib_sdtrain.train.boards import check_boards
from lib_sdtrain.train.data_checks import check_data
from lib_sdtrain.train.ema import check_average
from lib_sdtrain.train.embeddings import check_embedding
from lib_sdtrain.train.forms import NO_UNET, check_forms
from lib_sdtrain.train.held_out import check_validation
from lib_sdtrain.train.optimizers.elsewhere import check_elsewhere
from lib_sdtrain.train.optimizers.registry import SCHEDULE_FREE, check_optimizer
from lib_sdtrain.train.rates import check_schedule
from lib_sdtrain.train.token_vectors import check_token_vectors


def check_settings(settings: RunSettings, device: str, problems: Problems) -> None:
    """Add every contradiction within the settings, and with the device, to `problems`."""
    if not settings.data.concepts:
        problems.add("nothing to learn is given", where="data.concepts", fix="give at least one with an instance_dir")
    for index, concept in enumerate(settings.data.concepts):
        _check_concept(concept, f"data.concepts.{index}", problems)
    check_data(settings.data, problems)
    method = settings.method
    parts = method.train_unet or method.train_text_encoder or method.train_text_encoder_2
    if not parts and not settings.embedding.name:
        problems.add("nothing is left to train", where="method", fix="set train_unet or train_text_encoder to true")
    check_embedding(settings, problems)
    check_optimizer(settings.train, problems)
    check_backward_steps(settings.train, problems)
    check_elsewhere(settings.train, problems)
    check_token_vectors(settings, problems)
    check_schedule(settings.train.lr_scheduler, settings.train.lr_scheduler_args, problems)
    _check_saving(settings, problems)
    check_average(settings, problems)
    check_validation(settings, problems)
    check_boards(settings, problems)
    if settings.train.mixed_precision == "fp16" and device != "cuda":
        problems.add(
            f"fp16 training needs a CUDA device, this is {device}", where="train.mixed_precision", fix="use bf16 or no"
        )


def _check_saving(settings: RunSettings, problems: Problems) -> None:
    save, method = settings.save, settings.method
    check_forms(settings, problems)
    if settings.ema.decay is not None and settings.train.optimizer == SCHEDULE_FREE:
        problems.add("schedule_free averages the weights already", where="ema.decay", fix="turn it off")
    if settings.ema.decay is not None and save.ema == KEEP and not (method.kind == FULL and method.train_unet):
        problems.add(NO_UNET, where="save.ema", fix="choose use or drop")


def _check_concept(concept: Concept, where: str, problems: Problems) -> None:
    if not concept.instance_dir:
        problems.add("no folder of pictures is given", where=f"{where}.instance_dir")
    if concept.class_dir and not concept.class_prompt:
        problems.add(
            "class pictures are given but no words for them", where=f"{where}.class_prompt",
            fix="write what they show, for instance: a photo of a dog",
        )
    elif concept.class_from == OWN_PICTURES and not concept.class_prompt:
        problems.add(
            "the pictures are to stand for the class too, but there are no words for it",
            where=f"{where}.class_from", fix="write the class prompt, for instance: a photo of a dog; or choose folder",
        )
    same = concept.class_prompt and concept.class_prompt == concept.instance_prompt
    if same:
        problems.add(
            "the class prompt is the same as the prompt, so the class would become the subject",
            where=f"{where}.class_prompt", fix="leave the subject's own word out of it",
        )
