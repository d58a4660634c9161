"""The hash of what was trained on is worked out piece by piece, and is that of the whole text."""
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib_sdtrain.data.concepts import Material, Picture
from lib_sdtrain.settings.run import Concept
from lib_sdtrain.train import child


@pytest.mark.parametrize("beyond", [[], [["weights", 1.5, None]]])
@pytest.mark.parametrize("earlier", ["", "ab12"])
def test_it_is_that_of_the_json_text(monkeypatch, beyond, earlier):
    def pictures(count, caption):
        return tuple(Picture(Path(f"{n}.png"), f"{n:064x}", (8, 8), caption) for n in range(count))

    first = Material(Concept(), pictures(3, 'über "quoted"'), pictures(1, None))
    materials = [first, Material(Concept(), pictures(2, ""))]
    monkeypatch.setattr(child, "beyond_pictures", lambda plan: beyond)
    whole = [[[[p.sha256, p.caption] for p in m.pictures], [[p.sha256, p.caption] for p in m.class_pictures]]
             for m in materials]
    whole += [beyond] * bool(beyond) + [{"earlier": earlier}] * bool(earlier)
    text = json.dumps(whole, ensure_ascii=False)
    plan = SimpleNamespace(materials=materials, earlier=earlier)
    assert child.data_hash(plan) == hashlib.sha256(text.encode()).hexdigest()
