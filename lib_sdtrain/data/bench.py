"""What data sets cost: opening them by their size, drawing samples, and pictures decoded against plain Pillow."""
from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lib_sdtrain.data.ahead import MOST_WORKERS, ahead
from lib_sdtrain.data.catalogue import Catalogue
from lib_sdtrain.data.concepts import Material
from lib_sdtrain.data.draws import Draws
from lib_sdtrain.data.index import Known, PictureIndex, Said, connected, learn
from lib_sdtrain.data.listing import Listed
from lib_sdtrain.data.pictures import apply_fit, cover, open_picture
from lib_sdtrain.data.scanning import open_folder
from lib_sdtrain.events import CancelToken, Event, Finished, Phase, Started
from lib_sdtrain.settings.run import Concept, DataSettings

DRAWN, BATCH, AT_ONCE = 2000, 4, 10_000
SIZES = ((640, 480), (480, 640), (512, 512), (900, 600), (600, 900), (1280, 720))
PHOTO, TARGET, PHOTOS = (1600, 1200), (512, 512), 24


@dataclass(frozen=True)
class DataBench:
    """`known`: data sets by their number of pictures, made up and known already. `files`: so many small files are
    written, read and opened again. `runs` rounds of the comparison with Pillow.
    """

    known: Sequence[int] = (1000, 10_000, 100_000, 1_000_000)
    files: int = 2000
    runs: int = 5


class _Watch:
    """Clock and processor seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    @property
    def clock(self) -> float:
        return time.perf_counter() - self._began[0]

    @property
    def processor(self) -> float:
        return time.process_time() - self._began[1]


def bench_data(bench: DataBench, token: CancelToken) -> Iterator[Event]:
    """Measure; ends with `Finished`. Seconds are the processor's where they are not called the clock's.

    The document has a row for each data set: `opening` (s), `opening_a_picture` and `draw` (microseconds), `memory`
    (bytes that the process has grown by at most, None where the system does not tell); `files_N` likewise, with
    `reading_a_picture`. `decode_resize_crop`: clock seconds a picture, `ours`, `baseline`, their `ratio`, and the
    processor's.
    """
    yield Started(job="bench", total=len(bench.known) + 2)
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sdtrain-bench-") as name:
        folder = Path(name)
        for number, count in enumerate(sorted(bench.known)):
            yield Phase(name=f"{count} known pictures", done=number, total=len(bench.known) + 2, unit="parts")
            result[f"known_{count}"] = yield from _known(folder / f"{count}", count, token)
        yield Phase(name=f"{bench.files} files", done=len(bench.known), total=len(bench.known) + 2, unit="parts")
        result[f"files_{bench.files}"] = yield from _files(folder / "files", bench.files, token)
        yield Phase(name="decoding", done=len(bench.known) + 1, total=len(bench.known) + 2, unit="parts")
        result["decode_resize_crop"] = _decoding(folder / "photos", bench.runs, token)
    yield Finished(result=result)


def _listed(folder: Path, count: int) -> Iterator[Listed]:
    root = os.fsencode(folder)
    for number in range(count):
        yield Listed(b"%s/%04d/%07d.jpg" % (root, number // 1000, number), 100_000, number)


def _made_up(folder: Path, count: int) -> Iterator[tuple[Listed, Known, Said]]:
    rng = np.random.default_rng(0)
    for number, listed in enumerate(_listed(folder, count)):
        known = Known(rng.bytes(32).hex(), SIZES[number % len(SIZES)], int(rng.integers(1, 2**62)))
        yield listed, known, Said()


def _known(folder: Path, count: int, token: CancelToken) -> Generator[Event, None, dict[str, Any]]:
    folder.mkdir()
    index, made = PictureIndex(folder / "index.sqlite"), _made_up(folder, count)
    base = connected(index)
    for _ in range(0, count, AT_ONCE):
        token.check()
        learn(base, list(islice(made, AT_ONCE)))
    base.close()
    before = _peak()
    watch = _Watch()
    found = yield from open_folder(folder, token, index=index, listing=lambda root: _listed(root, count))
    return {**_opened(watch, count), "draw": _draw(found), "memory": _grown(before)}


def _files(folder: Path, count: int, token: CancelToken) -> Generator[Event, None, dict[str, Any]]:
    folder.mkdir()
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        small = np.random.default_rng(number).integers(0, 255, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width // 8, height // 8)).save(folder / f"{number:06d}.jpg")
        (folder / f"{number:06d}.txt").write_text(f"a photo of a thing, number {number}", encoding="utf-8")
    index, before = PictureIndex(folder / "index.sqlite"), _peak()
    watch = _Watch()
    yield from open_folder(folder, token, index=index)
    reading, watch = watch.processor, _Watch()
    found = yield from open_folder(folder, token, index=index)
    return {"reading_a_picture": round(reading / count * 1e6, 1), **_opened(watch, count), "draw": _draw(found),
            "memory": _grown(before)}


def _opened(watch: _Watch, count: int) -> dict[str, Any]:
    spent = watch.processor
    return {"opening": round(spent, 3), "opening_clock": round(watch.clock, 3),
            "opening_a_picture": round(spent / count * 1e6, 1)}


def _draw(found: Catalogue) -> float:
    """Microseconds that one sample takes, in batches of one bucket."""
    data = DataSettings(resolution="512", bucketing="kohya", shuffle_caption=True)
    draws = Draws([Material(Concept(instance_prompt="a photo"), found)], data, 0, BATCH)
    watch = _Watch()
    for number in range(DRAWN):
        draws.at(number)
    return round(watch.processor / DRAWN * 1e6, 1)


def _decoding(folder: Path, runs: int, token: CancelToken) -> dict[str, Any]:
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(PHOTOS)]
    for number, path in enumerate(paths):
        rough = np.random.default_rng(number).integers(0, 255, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(rough).resize(PHOTO, Image.Resampling.BICUBIC).save(path, quality=92)
    found: dict[str, list[tuple[float, float]]] = {"ours": [], "baseline": []}
    for number in range(runs + 1):
        for name, work in (("ours", _ours), ("baseline", _plainly)) if number % 2 else \
                (("baseline", _plainly), ("ours", _ours)):
            token.check()
            watch = _Watch()
            work(paths)
            if number:  # the first round warms up
                found[name].append((watch.clock / PHOTOS, watch.processor / PHOTOS))
    ours, baseline = (np.median(found[name], axis=0) for name in ("ours", "baseline"))
    ratio, processor = (ours / baseline).tolist()
    return {"ours": round(float(ours[0]), 5), "baseline": round(float(baseline[0]), 5), "ratio": round(ratio, 3),
            "processor_ratio": round(processor, 3), "runs": runs}


def _ours(paths: Sequence[Path]) -> None:
    def one(path: Path) -> Image.Image:
        image = open_picture(path)
        return apply_fit(image, cover(image.size, TARGET))

    for _ in ahead("bench", paths, one, lambda path: None):
        pass


def _plainly(paths: Sequence[Path]) -> None:
    """What Pillow alone takes, on as many threads."""

    def one(path: Path) -> Image.Image:
        with Image.open(path) as image:
            fit = cover(image.size, TARGET)
            x, y, width, height = fit.crop
            resized = image.convert("RGB").resize(fit.resize, Image.Resampling.LANCZOS)
            return resized.crop((x, y, x + width, y + height))

    with ThreadPoolExecutor(min(MOST_WORKERS, os.cpu_count() or 1)) as pool:
        list(pool.map(one, paths))


def _peak() -> int | None:
    """The most memory this process has held, in bytes."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _grown(before: int | None) -> int | None:
    return None if before is None else max(0, (_peak() or 0) - before)
