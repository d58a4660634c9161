"""What LoRA files call the layers of a checkpoint: kohya's names (diffusers' or LDM's below), diffusers' and PEFT's.

All of them are brought to kohya's form, `lora_unet_down_blocks_0_attentions_0_proj_in`, before they are looked up.
"""
from __future__ import annotations

from dataclasses import dataclass

from lib_sdtrain.model.family import Family
from lib_sdtrain.model.keys import TEXT_ENCODERS, UNET, part_rows
from lib_sdtrain.model.keys.unet import PREFIX as UNET_PREFIX

_WEIGHT = ".weight"
_PARTS = {UNET: ("lora_unet",), TEXT_ENCODERS[0]: ("lora_te", "lora_te1"), TEXT_ENCODERS[1]: ("lora_te2",)}
_DOTTED = (
    ("unet.", "lora_unet_"), ("text_encoder_2.", "lora_te2_"), ("text_encoder.", "lora_te_"),
    ("base_model.model.unet.", "lora_unet_"), ("base_model.model.text_encoder.", "lora_te_"),
)


@dataclass(frozen=True)
class Place:
    """Where a layer's change goes: the tensor `key`, its part `index` of `count` equal parts, maybe transposed."""

    key: str
    index: int = 0
    count: int = 1
    transposed: bool = False


def layer_places(family: Family) -> dict[str, Place]:
    """Kohya's name of every layer that a LoRA can change -> its place in a checkpoint of `family`."""
    places = {}
    for part, rows in part_rows(family).items():
        for row in rows:
            for index, name in enumerate(row.names):
                if not name.endswith(_WEIGHT):
                    continue
                place = Place(row.key, index, len(row.names), row.transposed)
                for prefix in _PARTS.get(part, ()):
                    places[f"{prefix}_{_flat(name)}"] = place
            if part == UNET and row.key.endswith(_WEIGHT):
                places[f"lora_unet_{_flat(row.key.removeprefix(UNET_PREFIX))}"] = Place(row.key)
    return places


def _flat(name: str) -> str:
    return name.removesuffix(_WEIGHT).replace(".", "_")


def kohya_name(module: str) -> str:
    """Kohya's name of a module as any of the known formats call it."""
    for dotted, prefix in _DOTTED:
        if module.startswith(dotted):
            return prefix + module.removeprefix(dotted).replace(".", "_")
    return module.replace(".", "_")
