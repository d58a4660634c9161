"""The baseline: the shortest program that merges two files of one layout by block, as fast as torch allows.

usage: python -m lib_sdtrain.merge.bench.loop A B OUT W0,W1,...

Memory-mapped inputs, threads with buffers of their own, multiply-add in fp32, pwrite into a preallocated
file, fsync, SHA-256 of the result. It knows one method, one layout and one number format, checks nothing
and tells nothing.
"""
from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import torch

from lib_sdtrain.merge.blocks import KEEP, LAYOUTS, block_of

CHUNK = 2**20
THREADS = 2


def _open(path: str) -> tuple[dict[str, Any], int, mmap.mmap]:
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        return header, 8 + length, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _jobs(header: dict[str, Any], weights: dict[str, float], layout: Any) -> list[tuple[int, int, float | None]]:
    jobs: list[tuple[int, int, float | None]] = []
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        block = block_of(key, layout)
        weight = weights[block] if block != KEEP and entry["dtype"] == "F16" else None
        jobs += [(start, min(start + 2 * CHUNK, end), weight) for start in range(begin, end, 2 * CHUNK)]
    return sorted(jobs)


def main(path_a: str, path_b: str, out: str, text: str) -> str:
    """Merge; gives the SHA-256 of the result."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    header, start_a, map_a = _open(path_a)
    _, start_b, map_b = _open(path_b)
    header.pop("__metadata__", None)
    numbers = [float(part) for part in text.split(",")]
    layout = next(layout for layout in LAYOUTS.values() if len(layout.names) == len(numbers))
    jobs = iter(_jobs(header, dict(zip(layout.names, numbers, strict=True)), layout))
    head = json.dumps(header, separators=(",", ":")).encode()
    head = len(head).to_bytes(8, "little") + head
    size = max(entry["data_offsets"][1] for entry in header.values())
    handle = os.open(out, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    os.posix_fallocate(handle, 0, len(head) + size)
    os.pwrite(handle, head, 0)
    lock = threading.Lock()

    def work() -> None:
        wide_a, wide_b, narrow = torch.empty(CHUNK), torch.empty(CHUNK), torch.empty(CHUNK, dtype=torch.float16)
        result = memoryview(narrow.numpy()).cast("B")
        while True:
            with lock:
                job = next(jobs, None)
            if job is None:
                return
            begin, end, weight = job
            if weight is None:
                os.pwrite(handle, memoryview(map_a)[start_a + begin : start_a + end], len(head) + begin)
                continue
            count = (end - begin) // 2
            a = torch.frombuffer(map_a, dtype=torch.float16, count=count, offset=start_a + begin)
            b = torch.frombuffer(map_b, dtype=torch.float16, count=count, offset=start_b + begin)
            x, y = wide_a[:count].copy_(a), wide_b[:count].copy_(b)
            narrow[:count].copy_(x.lerp_(y, weight))
            os.pwrite(handle, result[: end - begin], len(head) + begin)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.fsync(handle)
    os.close(handle)
    return _sha256(out)


def _sha256(path: str) -> str:
    digest, buffer = hashlib.sha256(), bytearray(2**20)
    with Path(path).open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
