"""What people would write under a picture of the toybox world: a sentence, or tags.

The subject's marks are never said.
"""

from __future__ import annotations

from random import Random

from lib_sdtrain.toybox.scene import Scene

PLACES = {"beach": "on a beach", "forest": "in a forest", "snow": "in the snow", "night": "at night"}
MEDIA = ("a photo of", "a picture of", "a drawing of", "an image of")
_SIDED = ("cat", "fish", "bird", "car")


def sentence(scene: Scene, medium: str = "a photo of") -> str:
    """The full sentence that names everything: "a photo of a red striped cat on a beach"."""
    pattern = "" if scene.pattern == "plain" else scene.pattern
    words = with_article([scene.colour, pattern, scene.kind])
    return f"{medium} {words} {PLACES[scene.background]}".strip()


def with_article(words: list[str]) -> str:
    """The words that are not empty, after `a` or `an`."""
    said = " ".join(word for word in words if word)
    return f"{'an' if said[0] in 'aeiou' else 'a'} {said}"


def facing(scene: Scene) -> str:
    """Which way it looks, empty for things without a front."""
    if scene.kind not in _SIDED:
        return ""
    return "facing left" if scene.flip else "facing right"


def _said(scene: Scene, rng: Random) -> dict[str, str]:
    """What a caption happens to mention: the colour nearly always, the size and direction seldom."""
    plain = scene.pattern == "plain"
    return {
        "size": scene.size if rng.random() < 0.3 else "",
        "colour": scene.colour if rng.random() < 0.92 else "",
        "pattern": scene.pattern if rng.random() < (0.4 if plain else 0.92) else "",
        "background": scene.background if rng.random() < 0.88 else "",
        "facing": facing(scene) if rng.random() < 0.25 else "",
    }


def caption(scene: Scene, rng: Random) -> str:
    """A caption as people write them, in one of the two styles; not everything is mentioned every time."""
    said = _said(scene, rng)
    if rng.random() < 0.35:
        tags = [said[name] for name in ("size", "colour", "pattern", "background", "facing") if said[name]]
        rng.shuffle(tags)
        return ", ".join([scene.kind, *tags])
    words = with_article([said["size"], said["colour"], said["pattern"], scene.kind])
    place = PLACES[scene.background] if said["background"] else ""
    medium = rng.choice(MEDIA) if rng.random() < 0.8 else ""
    return " ".join(part for part in (medium, words, said["facing"], place) if part)
