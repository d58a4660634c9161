"""What an infotext asks for that cannot be had outside of the WebUI."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lib_sdtrain.sample.infotext import Facts

NOT_HERE = {
    "Refiner": "the refiner", "Hires checkpoint": "another checkpoint for the second pass",
    "Face restoration": "face restoration", "Init image hash": "a picture to begin with (img2img)",
    "Mask blur": "a mask (img2img)", "Token merging ratio": "token merging", "FP8 weight": "weights in 8 bits",
    "ControlNet 0": "ControlNet",
}
"""Labels of infotexts, and what they ask for that only the WebUI itself has."""
_NO_EFFECT = {"Refiner switch at", "User", "Discard penultimate sigma", "Hashes", "Downcast alphas_cumprod"}


def not_honoured(facts: Facts, vae: str = "") -> tuple[str, ...]:
    """One line for each thing that the picture had and that cannot be had here.

    `vae` says how to name the picture's VAE; without it that is no matter.
    """
    notes = []
    for label, value in facts.extras:
        if label in NOT_HERE:
            notes.append(f"{NOT_HERE[label]} ({value}) cannot be had here; the picture will be another")
        elif label not in _NO_EFFECT:
            notes.append(f"“{label}: {value}” is not known here and has no effect")
    if facts.vae and vae:
        notes.append(f"it was decoded with the VAE {facts.vae}; {vae}")
    return tuple(notes)
