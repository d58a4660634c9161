"""What naifu's trainer wrote: torch_ema's state, in the order of diffusers' modules of its time."""
from __future__ import annotations

from collections import OrderedDict

import torch

from lib_sdtrain.model.build import empty_module, empty_modules
from lib_sdtrain.model.keys import part_rows, unet_rows

UNET = "model.diffusion_model."
OLD_BLOCK = ("attn1", "ff", "attn2", "norm1", "norm2", "norm3")


def old_order(unet):
    """The module with its transformer blocks registered as diffusers did until 0.14."""
    for module in unet.modules():
        if type(module).__name__ == "BasicTransformerBlock":
            module._modules = OrderedDict((name, module._modules[name]) for name in OLD_BLOCK)
    return unet


def names_of(unet):
    return [name for name, _ in unet.named_parameters()]


def average_of(tensors):
    """LDM's key -> value of an average that can be told from the weights and from one another."""
    unet = [key for key in tensors if key.startswith(UNET)]
    return {key: tensors[key].float() + number / 7 for number, key in enumerate(unet)}


def shadow(tensors, family, early=True):
    """torch_ema's state of the UNet: its list is in the order of the module's own parameters."""
    unet = empty_module(family, "unet")
    keys = {row.names[0]: row.key for row in unet_rows(family.unet)}
    average, shapes = average_of(tensors), {name: value.shape for name, value in unet.named_parameters()}
    params = [average[keys[name]].reshape(shapes[name]) for name in names_of(old_order(unet) if early else unet)]
    return {"decay": 0.995, "num_updates": 41, "shadow_params": params, "collected_params": None}


def module_names(tensors, family):
    """The state dict of naifu's LightningModule: diffusers' and transformers' modules under their own names."""
    modules = empty_modules(family)
    found = {}
    for part, rows in part_rows(family).items():
        shapes = {name: tuple(value.shape) for name, value in modules[part].state_dict().items()}
        for row in rows:
            found |= {f"{part}.{name}": value for name, value in row.to_module(tensors[row.key], shapes).items()}
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name in [name for name in found if name.startswith("vae.") and ".attentions.0." in name]:
        layer = next((now for now in former if f".{now}." in name), None)
        if layer:  # as diffusers had it then
            found[name.replace(f".{layer}.", f".{former[layer]}.")] = found.pop(name)
    return found | {"text_encoder.text_model.embeddings.position_ids": torch.arange(77).reshape(1, 77)}


def lightning(state, **beside):
    return {
        "epoch": 3, "global_step": 41, "pytorch-lightning_version": "1.8.1", "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {}, "lr_schedulers": [{"last_epoch": 41}],
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 5e-6}]}], **beside,
    }  # fmt: skip
