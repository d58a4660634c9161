"""Which of several cards `cuda` means. torch keeps that for each thread by itself; everywhere else `cuda` is enough."""
from __future__ import annotations

import torch


def use_card(device: torch.device) -> None:
    """In this thread `cuda` means the card of `device` from now on. One without a number changes nothing."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


def current_card() -> torch.device:
    """What `cuda` means in this thread, for another thread to use; a device that changes nothing before it was used."""
    return torch.device("cuda", torch.cuda.current_device() if torch.cuda.is_initialized() else None)
