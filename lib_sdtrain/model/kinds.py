"""What kind of model file a table of keys is: a checkpoint, or one of the small files that go with one."""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CHECKPOINT, UNKNOWN = "checkpoint", "unknown"


@dataclass(frozen=True)
class Kind:
    """A recognised kind: `name` for programs, `title` for people, `fix` says where such a file belongs."""

    name: str
    title: str
    fix: str
    pattern: str


EMBEDDING = Kind(
    "embedding", "an embedding (textual inversion)", "give the checkpoint here; an embedding is used in the prompt",
    r"(string_to_param\.|emb_params$|clip_[lg]$)",
)  # fmt: skip
_TEXT_WIDTHS = {768, 1024, 1280}

# The first whose pattern matches the beginning of any key; the more particular come first.
_KINDS = (
    Kind("sd3", "a Stable Diffusion 3 or Flux checkpoint", "only SD1, SD2 and SDXL are supported",
         r"(model\.diffusion_model\.)?(joint_blocks|x_embedder|double_blocks)\."),
    Kind(CHECKPOINT, "a checkpoint", "",
         r"model\.diffusion_model\.(input_blocks|time_embed)\.|unet/|unet\.conv_in\.weight$"),
    Kind("lora", "a LoRA", "give the checkpoint here; a LoRA is applied with --lora or in the prompt",
         r".*\.(lora_(down|up|A|B|mid)|lora\.(down|up)|hada_w[12]_[ab]|lokr_w[12]|oft_blocks|dora_scale|diff)\b"),
    Kind("controlnet", "a ControlNet", "give the checkpoint here", r"(control_model|controlnet_|input_hint_block)"),
    EMBEDDING,
    Kind("hypernetwork", "a hypernetwork", "give the checkpoint here", r"(320|640|768|1024|1280|2048)\.[01]\."),
    Kind("vae", "a VAE", "give the checkpoint here; a VAE is named with --vae or model.vae",
         r"(first_stage_model\.|vae/)?(encoder|decoder)\.(conv_in|mid|mid_block)\."),
    Kind("unet", "a UNet alone", "give a whole checkpoint: text encoder and VAE are needed too",
         r"(input_blocks\.0|down_blocks\.0|conv_in\.weight|time_embedding)"),
    Kind("text_encoder", "a text encoder alone", "give a whole checkpoint",
         r"(text_encoder(_2)?/|text_model\.|cond_stage_model\.|conditioner\.embedders\.|transformer\.resblocks\.)"),
    Kind("upscaler", "an upscaler", "give a checkpoint", r"(conv_first|model\.0|params(_ema)?\.conv_first|body\.0)\."),
)  # fmt: skip


def kind_of(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of the kind of a file with tensors of these names and shapes: checkpoint, lora, ... or unknown."""
    found = _kind(shapes)
    return found.name if found else UNKNOWN


def describe_not_a_checkpoint(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """(what the file is, what to do) for a file that is no checkpoint; None for a checkpoint."""
    found = _kind(shapes)
    if found is None:
        return "no weights of Stable Diffusion are in this file", "give a checkpoint (.safetensors or .ckpt)"
    if found.name == CHECKPOINT:
        return None
    return f"this is {found.title}, not a checkpoint", found.fix


def _kind(shapes: Mapping[str, tuple[int, ...]]) -> Kind | None:
    for kind in _KINDS:
        begins = re.compile(kind.pattern).match
        if any(begins(name) for name in shapes):
            return kind
    # diffusers names an embedding's only tensor after its token
    single = len(shapes) == 1 and all(0 < len(shape) <= 2 and shape[-1] in _TEXT_WIDTHS for shape in shapes.values())
    return EMBEDDING if single else None
