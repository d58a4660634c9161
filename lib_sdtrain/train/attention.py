"""Which attention kernel a training step uses where torch's own choice is a slow one."""
from __future__ import annotations

from typing import Any

from torch import Tensor, nn

LARGEST_TABLE = 1024 * 1024
"""Queries times keys up to which the whole table of scores is kept: 16 MB a head of eight in bfloat16."""


class HalfAttentionOnCpu:
    """Attention by two plain matrix products while the table of scores is small, else torch's fused kernel.

    On a CPU the fused kernel has no bfloat16 products in its backward pass: forward and backward together take two
    to four times as long as the plain form (1024 queries and keys, 8 heads of 40: 98 ms against 48 on one core).
    """

    def __init__(self) -> None:
        from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

        self.plain, self.fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **others: Any
    ) -> Tensor:
        """As diffusers calls a processor; hidden_states (B, n, width), encoder_hidden_states (B, m, width)."""
        keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        small = hidden_states.shape[1] * keys.shape[1] <= LARGEST_TABLE
        return (self.plain if small else self.fused)(attn, hidden_states, encoder_hidden_states, **others)


def choose_attention(unet: nn.Module, device: str, precision: str) -> None:
    """Give the UNet the faster attention for training in `precision` (`no`, `bf16`, `fp16`) on `device`."""
    if device == "cpu" and precision == "bf16":
        unet.set_attn_processor(HalfAttentionOnCpu())
