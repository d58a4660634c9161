"""The UNet as the denoiser calls it."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn import functional as F

from lib_sdtrain.sample.conditioning import Cond

Apply = Callable[[torch.Tensor, torch.Tensor, Cond], torch.Tensor]


def unet_call(unet: Any, concat: torch.Tensor | None = None) -> Apply:
    """apply(x, t, cond) for diffusers' UNet2DConditionModel; float32 in and out, in the UNet's own precision.

    `concat` (B, 5, h, w) is what inpainting models see beside the latent: the mask and the masked picture.
    """
    dtype = next(unet.parameters()).dtype

    def apply(x: torch.Tensor, t: torch.Tensor, cond: Cond) -> torch.Tensor:
        if concat is not None:
            x = torch.cat([x, concat.repeat(len(x) // len(concat), 1, 1, 1)], dim=1)
        extra = None
        if cond.pooled is not None:
            extra = {"text_embeds": cond.pooled.to(dtype), "time_ids": cond.sizes.to(dtype)}
        output = unet(
            x.to(dtype), t, encoder_hidden_states=cond.context.to(dtype), added_cond_kwargs=extra, return_dict=False,
        )
        return output[0].float()
    return apply


@contextmanager
def resized_after_upsampling(unet: Any) -> Iterator[None]:
    """Let sizes that do not halve evenly be met as the WebUI does: double, convolve, then resize to the skip's size.

    diffusers resizes before the convolution; the pictures differ whenever a latent's side is no multiple of 8.
    """
    with ExitStack() as stack:
        for block in unet.up_blocks:
            for upsampler in block.upsamplers or ():
                for handle in _hooks(upsampler):
                    stack.callback(handle.remove)
        yield


def _hooks(upsampler: torch.nn.Module) -> list[Any]:
    wanted: list[Any] = []

    def before(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        wanted[:] = [inputs[1] if len(inputs) > 1 else None]
        return inputs[:1]

    def after(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        size = wanted[0]
        if size is None or tuple(output.shape[-2:]) == tuple(size):
            return output
        return F.interpolate(output, size=tuple(size), mode="nearest")

    return [upsampler.register_forward_pre_hook(before), upsampler.register_forward_hook(after)]
