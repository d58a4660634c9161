"""Where a picture comes from: the run or merge that made the model which its infotext names."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_sdtrain.api.history import MERGE, RUN, History
from lib_sdtrain.api.merging_files import MergeFiles
from lib_sdtrain.api.sampling_form import read_form
from lib_sdtrain.errors import UserError


@dataclass(frozen=True)
class Origin:
    """`words` for people; `kind` run or merge with its `id` in the history, or `file`, a model that tells of itself."""

    words: str
    kind: str = ""
    id: str = ""
    file: str = ""
    metadata: Mapping[str, Any] | None = None


def origin_of(infotext: str, history: History, files: MergeFiles) -> Origin:
    """What made the model of a picture. Raises `UserError` for text that is no infotext or names no model."""
    reading = read_form(infotext)
    model, digest = reading.model, reading.model_hash.lower()
    if not (model or digest):
        raise UserError("this picture does not say which model drew it", where="picture",
                        fix="drop a PNG that the WebUI or SD Train saved")  # fmt: skip
    named = " ".join(filter(None, (model, f"[{digest}]" if digest else "")))
    rows = history.entries()
    found = _among_runs(rows, history, model, digest) or _among_merges(rows, named, model, digest)
    return found or _in_a_file(files, named, model, digest)


def _among_runs(rows: list[dict[str, Any]], history: History, model: str, digest: str) -> Origin | None:
    for row in rows:
        if row["kind"] != RUN:
            continue
        log = history.log(history.run(row["id"]))
        for file, facts in log.saved.items():
            same = facts["sha256"].startswith(digest) if digest and facts["sha256"] else Path(file).stem == model
            if same:
                words = f"It was drawn with {Path(file).name}, which {row['label']} wrote at step {facts['step']}."
                return Origin(words, RUN, row["id"])
        if not digest and any(model == f"{row['label']}-{step:06d}" for step in log.previews):
            return Origin(f"It is a preview of {row['label']}.", RUN, row["id"])
    return None


def _among_merges(rows: list[dict[str, Any]], named: str, model: str, digest: str) -> Origin | None:
    for row in rows:
        same = row["kind"] == MERGE and (row["sha256"].startswith(digest) if digest else row["label"] == model)
        if same:
            return Origin(f"It was drawn with {named}, a merge that was made here.", MERGE, row["id"])
    return None


def _in_a_file(files: MergeFiles, named: str, model: str, digest: str) -> Origin:
    """A model in the host's list that carries its own recipe."""
    from lib_sdtrain.model.hashes import user_cache
    from lib_sdtrain.model.metadata import OURS, RECIPE, readable
    from lib_sdtrain.model.tensorfile import open_tensors

    cache = user_cache()
    for entry in files.host.checkpoints():
        if not entry.path.is_file():
            continue
        known = cache.get(entry.path) or ""
        if not ((digest and (known.startswith(digest) or f"[{digest}]" in entry.title)) or entry.path.stem == model):
            continue
        try:
            with open_tensors(entry.path) as tensors:
                metadata = readable(tensors.metadata)
        except UserError:
            continue
        ours = metadata.get(OURS)
        if metadata.get(RECIPE):
            words = f"It was drawn with {named}, a merged model that carries its recipe."
            return Origin(words, MERGE, file=entry.title, metadata=metadata)
        if isinstance(ours, dict) and ours.get("kind") == "train":
            return Origin(f"It was drawn with {named}, a trained model that carries its settings.", RUN,
                          file=entry.title, metadata=ours)  # fmt: skip
        return Origin(f"It was drawn with {entry.path.name}, which does not tell how it was made.", file=entry.title)
    return Origin(f"It was drawn with {named}, which is not among the models here.")
