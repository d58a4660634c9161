"""What the form keeps out of sight because nothing uses it changes nothing that is trained."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_sdtrain import train
from lib_sdtrain.errors import UserError
from lib_sdtrain.events import Finished
from lib_sdtrain.settings.fields import PATH_KINDS, declared
from lib_sdtrain.settings.idle import idle_paths
from lib_sdtrain.settings.lengths import Length
from lib_sdtrain.settings.run import RunSettings
from tests.train.runs import finish, run_settings

METHODS = {
    "full": {},
    "lora": {"method__kind": "lora"},
    "embedding": {"method__kind": "embedding", "embedding__name": "sks", "embedding__init_words": "dog"},
}


def another(item):
    """A valid value that is not the default; None where there is none that one could think of."""
    meta, value = item.meta, item.default
    if item.type is bool:
        return not value
    if meta.choices:
        return next(choice for choice in meta.choices if choice != str(value))
    if item.type is str:
        return None if meta.kind in PATH_KINDS else "dog"
    if item.type is Length:
        return "2 steps" if value != Length(2) else "3 steps"
    if item.type in (int, float):
        least = value if value is not None else meta.minimum or 0
        return item.type(least + 1 if meta.maximum is None or least + 1 <= meta.maximum else least / 2)
    return None


def trained(checkpoint, folder, run_dir, changes):
    settings = run_settings(checkpoint, folder, train__length=3, **changes)
    last = finish(train(settings, run_dir=run_dir))[-1]
    assert isinstance(last, Finished), last
    return load_file(Path(last.result["checkpoint"]))


def refused(checkpoint, folder, changes):
    """The changed settings that are told as mistakes."""
    try:
        trained(checkpoint, folder, None, changes)
    except UserError as error:
        return {problem.where.replace(".", "__") for problem in error.problems}
    return set()


@pytest.mark.parametrize("method", METHODS)
def test_idle_settings_are_refused_or_change_no_weight(tiny_checkpoint, picture_folder, tmp_path, method):
    folder, own = picture_folder("i", 2), METHODS[method]
    idle = idle_paths(run_settings(tiny_checkpoint, folder, **own))
    values = {item.path: another(item) for item in declared(RunSettings) if item.path in idle}
    changed = {path.replace(".", "__"): value for path, value in values.items() if value is not None}
    silent = dict(changed)
    while told := refused(tiny_checkpoint, tmp_path / "none", {**own, **silent}) - {"data__concepts__0__instance_dir"}:
        assert told <= silent.keys()
        silent = {path: value for path, value in silent.items() if path not in told}
    assert len(silent) > 20
    plain = trained(tiny_checkpoint, folder, tmp_path / "a", own)
    other = trained(tiny_checkpoint, folder, tmp_path / "b", {**own, **silent})
    assert plain.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in plain.items())
