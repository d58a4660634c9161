"""What strangers' bytes reach: each target takes any bytes and ends well or with a `UserError`, never otherwise.

Where there is more to say than that nothing breaks, the target says it with an assertion.
"""
from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from lib_sdtrain.api.run_log import RunLog, head, tail
from lib_sdtrain.data.arb import naifu_aspects, parse_arb
from lib_sdtrain.data.concepts import Captions
from lib_sdtrain.data.everydream_files import read_side_files
from lib_sdtrain.data.metadata import MetadataFile
from lib_sdtrain.data.pictures import BadPicture, decode
from lib_sdtrain.errors import UserError
from lib_sdtrain.merge.blocks import SD
from lib_sdtrain.merge.dice import bounds
from lib_sdtrain.merge.elements import parse_rules
from lib_sdtrain.merge.presets import bundled_presets
from lib_sdtrain.merge.recipes_read import read_recipe
from lib_sdtrain.merge.weights import read_weights
from lib_sdtrain.model.family import PUBLISHED, SD1
from lib_sdtrain.model.ldm_config import apply_config
from lib_sdtrain.model.metadata import lineage, readable, recipe_of
from lib_sdtrain.model.tensorfile import open_tensors
from lib_sdtrain.sample.composition import composed, networks, uncommented
from lib_sdtrain.sample.editing import Steps, edited
from lib_sdtrain.sample.infotext import parse_infotext
from lib_sdtrain.sample.networks import wanted_of
from lib_sdtrain.sample.requests import from_api, read_infotexts, read_requests, to_api
from lib_sdtrain.settings.layers import to_plain
from lib_sdtrain.settings.parse import build
from lib_sdtrain.settings.run import RunSettings
from lib_sdtrain.textfiles import parse_yaml
from lib_sdtrain.train.run_dir import RunDir

MOST_TENSORS = 64
STEPS = 20
_FOLDER = Path(tempfile.mkdtemp(prefix="sdtrain-fuzz-"))


def _file(name: str, content: bytes) -> Path:
    path = _FOLDER / name
    path.write_bytes(content)
    return path


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _tensors(path: Path) -> None:
    with open_tensors(path) as tensors:
        for key in list(tensors.keys())[:MOST_TENSORS]:
            assert len(tensors.raw(key)) == tensors.nbytes(key)
        readable(tensors.metadata), recipe_of(tensors.metadata), lineage(tensors.metadata)


def safetensors(content: bytes) -> None:
    """A file that calls itself .safetensors."""
    _tensors(_file("any.safetensors", content))


def torch_file(content: bytes) -> None:
    """A file that calls itself .ckpt: a pickle, in a zip or not, of which nothing may run."""
    _tensors(_file("any.ckpt", content))


def prompt(content: bytes) -> None:
    """A prompt: the parts of AND, the networks, and what each step of 20 is told, in order and to the last."""
    text, marks = networks(uncommented(_text(content)))
    for mark in marks:
        wanted_of(mark)
    for part in composed(text):
        intervals = edited(part.text, Steps(STEPS))
        ends = [interval.end for interval in intervals]
        assert ends == sorted(set(ends))
        assert ends[-1] == STEPS


def infotext(content: bytes) -> None:
    """What stands in a picture's metadata."""
    request, _ = parse_infotext(_text(content))
    assert from_api(to_api(request)) == request
    read_infotexts(_text(content))


def requests(content: bytes) -> None:
    """Bodies of the WebUI's API."""
    read_requests(_text(content))


def settings(content: bytes) -> None:
    """A run's YAML; what is accepted says the same after it was written and read again."""
    raw = parse_yaml(_text(content), "fuzz")
    if isinstance(raw, dict):
        found = build(RunSettings, raw)
        assert build(RunSettings, to_plain(found)) == found


def arb(content: bytes) -> None:
    """naifu's block of buckets."""
    raw = parse_yaml(_text(content), "fuzz")
    if isinstance(raw, dict):
        naifu_aspects(parse_arb(raw))


def multiply(content: bytes) -> None:
    """EveryDream's side files."""
    _file("multiply.txt", content)
    _file("local.yaml", content)
    read_side_files(_FOLDER, PurePosixPath())


def recipe(content: bytes) -> None:
    """A merge's recipe, ours, the WebUI's or SuperMerger's."""
    read_recipe("{" + _text(content))


def weights(content: bytes) -> None:
    """Block weights, element rules and dice, as typed."""
    text = _text(content)
    for read in (
        lambda: read_weights(text, bundled_presets()), lambda: parse_rules(text, SD), lambda: bounds(text, 25, "fuzz"),
    ):
        try:
            read()
        except UserError:
            continue


def description(content: bytes) -> None:
    """The .yaml beside a checkpoint."""
    apply_config(PUBLISHED[SD1], _file("any.yaml", content))


def picture(content: bytes) -> None:
    """A picture to train on."""
    try:
        image = decode(content)
    except BadPicture:
        return
    assert image.mode == "RGB"


def metadata(content: bytes) -> None:
    """A list of captions and columns, in each of its forms."""
    for suffix in (".json", ".jsonl", ".csv", ".tsv"):
        with contextlib.suppress(UserError):
            found = MetadataFile(str(_file(f"meta{suffix}", content)), "fuzz")
            Captions(_FOLDER, found).of(_FOLDER / "a.png")


def log(content: bytes) -> None:
    """A run's events.jsonl, as the tab and as resuming read it; what is read at once and as it grows is the same."""
    file = _file("events.jsonl", content)
    whole = RunLog(file).read()
    assert RunDir(_FOLDER).finished_steps() >= 0
    RunDir(_FOLDER).validated(1)
    head(file), tail(file)
    _file("events.jsonl", content[: len(content) // 2])
    growing = RunLog(file).read()
    _file("events.jsonl", content)
    assert growing.read() == whole


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (
        safetensors, torch_file, prompt, infotext, requests, settings, arb, multiply, recipe, weights, description,
        picture, metadata, log,
    )
}


def survive(name: str, content: bytes) -> None:
    """Feed a target. Raises whatever is no `UserError`."""
    with contextlib.suppress(UserError):
        TARGETS[name](content)
