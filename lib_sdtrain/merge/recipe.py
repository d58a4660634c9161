"""The recipe that a merged file carries: all that is needed to make the same bytes again.

Three entries of the metadata (see `model/metadata.py`): ours with the settings as resolved numbers and the
parents' hashes by role; `sd_merge_recipe` in the words of the WebUI's merger, for programs that read that
form; `sd_merge_models` with the ancestors. Paths, dates and presets' names stay out: they say nothing of
the weights.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_sdtrain.merge.inputs import Inputs, split_lora
from lib_sdtrain.merge.ratios import resolve_ratios
from lib_sdtrain.merge.session import MergeSession
from lib_sdtrain.model.dtypes import SHORT_NAMES
from lib_sdtrain.model.hashes import legacy_hash
from lib_sdtrain.model.metadata import MERGE, PREDICTION, Parent, provenance
from lib_sdtrain.settings.merge import MergeSettings

_WHEN_SET = ("elements", "dtype", "adjust", "discard")
_OF_METHOD = ("gamma", "density", "drop_rate", "seed")


def weights_of(settings: MergeSettings, inputs: Inputs) -> tuple[dict[str, float], dict[str, float]]:
    """Alpha and beta of every block."""
    ratios = resolve_ratios(settings, inputs.method, inputs.layout)
    return ratios.alpha.as_dict(), ratios.beta.as_dict()


def resolved_settings(session: MergeSession) -> dict[str, Any]:
    """The settings that determine the weights, presets and dice as numbers, files by role."""
    settings, inputs = session.settings, session.inputs
    method = inputs.method
    alpha, beta = weights_of(settings, inputs)
    resolved: dict[str, Any] = {
        "method": method.name, "arithmetic": settings.arithmetic, "blocks": settings.blocks, "ema": settings.ema,
    }  # fmt: skip
    if "alpha" in method.params:
        resolved |= _weights("alpha", alpha)
    if method.uses_beta:
        resolved |= _weights("beta", beta)
    wanted = [*method.params, *(("seed",) if "generator" in method.params else ())]
    resolved |= {name: getattr(settings, name) for name in _OF_METHOD if name in wanted}
    resolved |= {name: getattr(settings, name) for name in _WHEN_SET if getattr(settings, name)}
    if inputs.loras:
        resolved["lora"] = [_lora(text, list(item.weights.values)) for text, item in _pairs(settings, inputs)]
    return resolved


def _pairs(settings: MergeSettings, inputs: Inputs) -> Any:
    return zip(settings.lora, inputs.loras, strict=True)


def _lora(text: str, values: list[float]) -> dict[str, Any]:
    _, weight, blocks = split_lora(text)
    return {"weights": values} if blocks else {"weight": weight}


def _weights(name: str, values: dict[str, float]) -> dict[str, Any]:
    numbers = list(values.values())
    if len(set(numbers)) == 1:
        return {name: numbers[0]}
    return {f"weights_{name}": numbers}


def recipe_metadata(
    session: MergeSession, digests: Mapping[str, str], names: Mapping[str, str]
) -> dict[str, str]:
    """The metadata of the merged file.

    `digests` are the SHA-256 of `inputs.paths()` by role; `names` (by SHA-256) are names that the files had
    when the merge was made first, so that renaming a parent does not change what is made again.
    """
    inputs = session.inputs
    metadata = {role: model.tensors.metadata for role, model in inputs.models.items()}
    parents = {
        role: Parent(
            digests[role], legacy_hash(path) if path.is_file() else "", names.get(digests[role], path.name),
            metadata.get(role, {}),
        )
        for role, path in inputs.paths().items()
    }
    settings = resolved_settings(session)
    found = provenance(MERGE, settings, parents, {}, recipe=_webui_words(session, parents, settings))
    return found | {name: text for name, text in metadata["a"].items() if name == PREDICTION}  # read as A is


def _webui_words(session: MergeSession, parents: Mapping[str, Parent], settings: Mapping[str, Any]) -> dict[str, Any]:
    inputs = session.inputs
    variant = inputs.a.family.variant
    digests = {role: parent.sha256 for role, parent in parents.items()}
    merged = any(step.channels is not None for step in session.plan.steps.values())
    return {
        "primary_model_hash": digests["a"],
        "secondary_model_hash": digests.get("b"),
        "tertiary_model_hash": digests.get("c"),
        "interp_method": inputs.method.title,
        "multiplier": settings.get("alpha"),
        "weights_alpha": settings.get("weights_alpha"),
        "weights_beta": settings.get("weights_beta"),
        "save_as_half": session.settings.dtype is not None and SHORT_NAMES[session.settings.dtype].itemsize == 2,
        "custom_name": "",
        "config_source": 0,
        "bake_in_vae": parents["vae"].name if "vae" in parents else "None",
        "discard_weights": session.settings.discard or "",
        "is_inpainting": merged and variant == "inpainting",
        "is_instruct_pix2pix": merged and variant == "instruct_pix2pix",
    }
