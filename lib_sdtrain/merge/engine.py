"""The engine of a merge: open, plan, hash the parents, stream the result to disk."""
from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib_sdtrain.events import CancelToken, Event, Finished, Notice, Phase, Saved, Started
from lib_sdtrain.merge.compute import PIECE, Computer, Piece
from lib_sdtrain.merge.parents import ParentHashes
from lib_sdtrain.merge.plan import block_report
from lib_sdtrain.merge.recipe import recipe_metadata, weights_of
from lib_sdtrain.merge.remake import settings_again
from lib_sdtrain.merge.session import MergeSession
from lib_sdtrain.merge.workers import workers
from lib_sdtrain.model.writer import CheckpointWriter, Written
from lib_sdtrain.settings.merge import MergeSettings

IN_FLIGHT = 16 * 2**20
"""Bytes of results that may wait to be written; a single tensor may be larger."""

ROOM = PIECE * 4
"""Bytes of a buffer for the result of a piece."""

_MOST_THREADS = 4
_TELL_EVERY = 0.2


def run(
    settings: MergeSettings, token: CancelToken, hashes: ParentHashes, folders: Sequence[Path]
) -> Iterator[Event]:
    """See `lib_sdtrain.merge.merge`."""
    began = time.monotonic()
    names: Mapping[str, str] = {}
    if settings.recipe:
        again = yield from settings_again(settings, token, hashes, folders)
        settings, names = again.settings, again.names
        yield from (Notice(text=note) for note in again.notes)
    with MergeSession(settings) as session:
        plan = session.plan
        yield Started(job="merge", total=len(plan.steps))
        yield from (Notice(text=note) for note in plan.notes)
        digests = yield from _parents(session, token, hashes)
        yield from _survey(session, token)
        metadata = recipe_metadata(session, digests, names)
        written = yield from _write(session, metadata, token)
        yield from _warnings(session)
        yield Saved(file=str(written.path), sha256=written.sha256)
        yield Finished(result=_document(session, written, time.monotonic() - began))


def _parents(session: MergeSession, token: CancelToken, hashes: ParentHashes) -> Iterator[Any]:
    """Wait for the hashes of all inputs; gives role -> SHA-256."""
    paths = session.inputs.paths()
    hashes.start(paths.values())
    total = sum(path.stat().st_size for path in set(paths.values()) if path.is_file())
    digests = {}
    for role, path in paths.items():
        while role not in digests:
            token.check()
            try:
                digests[role] = hashes.get(path, timeout=_TELL_EVERY)
            except TimeoutError:
                yield Phase(name="hashing the parents", done=hashes.bytes_done, total=total, unit="bytes")
    return digests


def _survey(session: MergeSession, token: CancelToken) -> Iterator[Event]:
    total, told = len(session.plan.merged), 0.0
    for done, _ in enumerate(session.survey(), start=1):
        token.check()
        if time.monotonic() - told > _TELL_EVERY or done == total:
            told = time.monotonic()
            yield Phase(name="comparing the models", done=done, total=total, unit="tensors")


def _write(session: MergeSession, metadata: dict[str, str], token: CancelToken) -> Iterator[Any]:
    """Stream every step into the file; gives the `Written` file."""
    plan, computer = session.plan, session.computer
    threads = session.settings.threads or min(os.cpu_count() or 1, _MOST_THREADS)
    done, told = 0, 0.0
    out = Path(str(session.settings.out)).expanduser()
    with CheckpointWriter(out, plan.specs, metadata, session.inputs.a.config_text) as writer:
        pieces = (piece for key in writer.keys for piece in computer.pieces(plan.steps[key]))
        for piece, data in streamed(computer, pieces, threads):
            token.check()
            writer.write_raw(piece.step.key, data, piece.start * piece.step.dtype.itemsize)
            done += len(data)
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                yield Phase(name="merging", done=done, total=plan.nbytes, unit="bytes")
        yield Phase(name="merging", done=done, total=plan.nbytes, unit="bytes")
    return writer.result


def _warnings(session: MergeSession) -> Iterator[Event]:
    lost = sorted(session.computer.not_finite)
    if lost:
        why = "a model is damaged, or a weight is too large for this precision"
        yield Notice(text=f"{len(lost)} tensors have values that are infinite or no number ({lost[0]} ...): {why}")


def streamed(computer: Computer, pieces: Iterable[Piece], count: int) -> Iterator[tuple[Piece, memoryview]]:
    """Pieces with their bytes, in order, computed ahead by `count` threads within `IN_FLIGHT` bytes.

    The bytes are valid until the next piece is asked for: their buffers are used again.
    """
    waiting: deque[tuple[Piece, Tensor, Future[memoryview]]] = deque()
    rooms: list[Tensor] = []
    held = 0

    def first() -> Iterator[tuple[Piece, memoryview]]:
        nonlocal held
        piece, room, future = waiting.popleft()
        held -= piece.nbytes
        yield piece, future.result()
        rooms.append(room)

    with workers(count) as pool:
        for piece in pieces:
            while waiting and held + piece.nbytes > IN_FLIGHT:
                yield from first()
            room = rooms.pop() if rooms else torch.empty(ROOM, dtype=torch.uint8)
            waiting.append((piece, room, pool.submit(computer.piece_bytes, piece, room)))
            held += piece.nbytes
        while waiting:
            yield from first()


def _document(session: MergeSession, written: Written, seconds: float) -> dict[str, Any]:
    """The command's JSON document."""
    alpha, beta = weights_of(session.settings, session.inputs)
    document = {
        "out": str(written.path), "sha256": written.sha256, "seconds": round(seconds, 3),
        "method": session.plan.method.name, "blocks": alpha, "convention": session.settings.blocks,
        "report": block_report(session.plan), "notices": list(session.plan.notes),
        "not_finite": sorted(session.computer.not_finite),
    }  # fmt: skip
    if session.plan.method.uses_beta:
        document["blocks_beta"] = beta
    return document

