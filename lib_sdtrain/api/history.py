"""What was trained and merged here: one list, one run in full, several side by side, and taking them off the disk."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib_sdtrain import textfiles
from lib_sdtrain.api.merging_history import History as MergeHistory
from lib_sdtrain.api.run_log import RunLog
from lib_sdtrain.api.runs import RunEntry, find_run, list_runs, state_folders
from lib_sdtrain.errors import UserError
from lib_sdtrain.host.protocol import Host
from lib_sdtrain.jobs import JobRunner
from lib_sdtrain.settings.fields import PATH_KINDS, declared, default_text
from lib_sdtrain.settings.merge import MergeSettings
from lib_sdtrain.settings.run import Concept, RunSettings

RUN, MERGE = "run", "merge"
MOST_COMPARED, LOGS_KEPT, CURVE_POINTS = 6, 24, 400
_IDENTITY = ("name", "save.name")  # what differs between any two runs


class History:
    """Runs by their folder's name, merges as `merge-` and the time of their end in milliseconds."""

    def __init__(self, host: Host, runner: JobRunner, merges: MergeHistory) -> None:
        self._host, self._runner, self._merges = host, runner, merges
        self._logs: OrderedDict[str, RunLog] = OrderedDict()

    # lists

    def entries(self) -> list[dict[str, Any]]:
        """Runs and merges, the newest first: `id`, `kind`, `label`, `state`, `began`, and what belongs to the kind."""
        found = [self._run_row(entry) for entry in list_runs(self._folder)]
        found += [_merge_row(entry) for entry in self._merges.entries()]
        return sorted(found, key=lambda row: row["began"] or 0.0, reverse=True)

    @property
    def _folder(self) -> Path:
        return self._host.output_dir() / "runs"

    def _run_row(self, entry: RunEntry) -> dict[str, Any]:
        state = "running" if self.running(entry.path) else entry.end or "cut off"
        return {"id": entry.name, "kind": RUN, "state": state, **entry.as_dict()}

    def running(self, path: Path) -> bool:
        """Whether the running job writes into this folder."""
        job = self._runner.job
        return bool(job and job.active and job.run_dir and Path(job.run_dir).resolve() == path.resolve())

    def run(self, name: str) -> RunEntry:
        """A run of the list. Raises `UserError` for anything else."""
        entry = find_run(self._folder, name)
        if entry is None:
            raise UserError(f"there is no run {name!r}", where="run", fix="choose one of the list")
        return entry

    def log(self, entry: RunEntry) -> RunLog:
        """The run's log as far as it is written."""
        log = self._logs.pop(entry.name, None) or RunLog(entry.path / "events.jsonl")
        self._logs[entry.name] = log.read()
        if len(self._logs) > LOGS_KEPT:
            self._logs.popitem(last=False)
        return log

    # one of them

    def detail(self, name: str) -> dict[str, Any]:
        """Everything about a run or merge. Raises `UserError` when there is none of that name."""
        if name.startswith("merge-"):
            entry = self._merge(name)
            return {**_merge_row(entry), "out": self._told(Path(entry["out"])), "there": Path(entry["out"]).is_file(),
                    "settings": flat(entry["form"])}  # fmt: skip
        entry = self.run(name)
        log, sizes, states = self.log(entry), file_bytes(entry.path), state_folders(entry.path)
        return {
            **self._run_row(entry), "path": self._told(entry.path), "points": thinned(log.points),
            "validations": [{"name": name, "points": thinned(series)} for name, series in log.validations.items()],
            "seconds": round(log.seconds, 1), "rate": log.rate,
            "previews": [{"step": step, "pictures": pictures} for step, shown in sorted(log.previews.items())
                         if (pictures := [{"index": index, "infotext": one["infotext"]} for index, one
                                          in sorted(shown.items()) if entry.path / one["file"] in sizes])],
            "files": [self._file(entry, file, facts) for file, facts in log.saved.items()],
            "notices": log.notices, "problems": log.problems, "settings": self.settings(entry),
            "bytes": sum(sizes.values()),
            "state_bytes": sum(size for path, size in sizes.items() if any(map(path.is_relative_to, states))),
        }  # fmt: skip

    def _merge(self, name: str) -> dict[str, Any]:
        found = next((entry for entry in self._merges.entries() if _merge_id(entry) == name), None)
        if found is None:
            raise UserError(f"there is no merge {name!r}", where="run", fix="choose one of the list")
        return found

    def _told(self, path: Path) -> str:
        """A path for people; a page that is to show no folders gets the name."""
        return path.name if self._host.hides_folders else str(path.resolve())

    def _file(self, entry: RunEntry, file: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        path = entry.path / file  # an absolute one stays what it is
        there = path.is_file()
        return {"file": path.name, "place": self._told(path.parent), "there": there,
                "bytes": path.stat().st_size if there else 0, **facts}  # fmt: skip

    def settings(self, entry: RunEntry) -> dict[str, str]:
        """The run's settings as text by dotted path; empty when its config.yaml cannot be read."""
        try:
            found = flat(textfiles.read_mapping(entry.path / "config.yaml"))
        except UserError:
            return {}
        if not self._host.hides_folders:
            return found
        return {path: Path(text).name if _general(path) in _paths() else text for path, text in found.items()}

    def picture(self, name: str, step: int, index: int) -> Path | None:
        """The file of a preview that the run's own log names, inside its folder; None for anything else."""
        entry = self.run(name)
        found = self.log(entry).previews.get(step, {}).get(index)
        if found is None:
            return None
        path = (entry.path / found["file"]).resolve()
        inside = entry.path.resolve() in path.parents and path.suffix == ".png"
        return path if inside and path.is_file() else None

    # several

    def compare(self, names: Sequence[str]) -> dict[str, Any]:
        """Settings in which runs or merges differ: `{"labels": [...], "settings": [{path, label, values}]}`.

        Raises `UserError` for fewer than two, too many, or unknown ones.
        """
        if not 2 <= len(names) <= MOST_COMPARED:
            raise UserError(f"{len(names)} were chosen", where="run", fix=f"choose two to {MOST_COMPARED}")
        rows = [(self._merge(name)["out"], flat(self._merge(name)["form"])) if name.startswith("merge-")
                else (self.run(name).label, self.settings(self.run(name))) for name in names]  # fmt: skip
        labels, found = [Path(str(label)).name for label, _ in rows], [settings for _, settings in rows]
        paths = list(dict.fromkeys(path for settings in found for path in settings))
        known = _known_settings()
        differing = []
        for path in paths:
            label, default = known.get(_general(path), (path, "-"))
            values = [settings.get(path, default) for settings in found]
            if len(set(values)) > 1 and path not in _IDENTITY:
                differing.append({"path": path, "label": label, "values": values})
        return {"labels": labels, "settings": differing}


def _general(path: str) -> str:
    """`data.concepts.3.weight` -> `data.concepts.N.weight`."""
    return ".".join("N" if part.isdigit() else part for part in path.split("."))


def _paths() -> set[str]:
    """Settings that name a file or a folder."""
    items = (*declared(RunSettings), *declared(Concept, "data.concepts.N."))
    return {item.path for item in items if item.meta.kind in PATH_KINDS or item.meta.kind == "checkpoint"}


def _known_settings() -> dict[str, tuple[str, str]]:
    found = {item.path: (item.meta.label, default_text(item)) for cls in (MergeSettings, RunSettings)
             for item in declared(cls)}  # fmt: skip
    return found | {item.path: (item.meta.label, default_text(item)) for item in declared(Concept, "data.concepts.N.")}


def flat(data: Any, prefix: str = "") -> dict[str, str]:
    """Nested plain data as text by dotted path; lists of plain values stay one text."""
    if isinstance(data, Mapping):
        parts = [flat(value, f"{prefix}.{name}" if prefix else str(name)) for name, value in data.items()]
    elif isinstance(data, (list, tuple)) and any(isinstance(value, Mapping) for value in data):
        parts = [flat(value, f"{prefix}.{index}") for index, value in enumerate(data)]
    else:
        return {prefix: shown(data)}
    return {path: text for part in parts for path, text in part.items()}


def shown(value: Any) -> str:
    """A plain value as people write it."""
    if value is None:
        return "off"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        head, exponent, power = f"{value:g}".partition("e")
        return f"{head}e{int(power)}" if exponent else head
    return ", ".join(map(shown, value)) if isinstance(value, (list, tuple)) else str(value)


def thinned(points: Sequence[Any], most: int = CURVE_POINTS) -> list[Any]:
    """At most so many points, spread evenly; the first and the last are among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(index * (len(points) - 1) / (most - 1))] for index in range(most)]


def _merge_id(entry: Mapping[str, Any]) -> str:
    return f"merge-{int(entry['time'] * 1000)}"


def _merge_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    out = Path(entry["out"])
    return {
        "id": _merge_id(entry), "kind": MERGE, "state": "finished", "label": out.stem, "method": entry["method"],
        "began": entry["time"] - entry["seconds"], "last": entry["time"], "seconds": entry["seconds"],
        "sha256": entry["sha256"], "bytes": entry["bytes"],
    }  # fmt: skip


def file_bytes(folder: Path) -> dict[Path, int]:
    """Sizes of all files below a folder; links are not followed."""
    return dict(_sizes(folder)) if folder.is_dir() and not folder.is_symlink() else {}


def _sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in folder.iterdir():
        if path.is_symlink():
            continue
        if path.is_dir():
            yield from _sizes(path)
        elif path.is_file():
            yield path, path.stat().st_size
