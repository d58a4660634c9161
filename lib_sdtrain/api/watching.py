"""What the tab polls: the job and its preview pictures. Read-only, and no path ever comes from the page."""
from __future__ import annotations

from pathlib import Path

from lib_sdtrain.api.queue import Queue
from lib_sdtrain.api.routing import NUMBER, OBJECT, OBJECTS, TEXT, Asked, Route, record
from lib_sdtrain.api.sampling_work import SHEET
from lib_sdtrain.events import Preview
from lib_sdtrain.jobs import FAILED, FINISHED, RUNNING, STOPPED, STOPS, WAITING, Job, JobRunner

JOB = {
    **record(id=TEXT, kind=TEXT, label=TEXT, state={"enum": [WAITING, RUNNING, FINISHED, STOPPED, FAILED]},
             asked={"enum": ["", *STOPS]}, last=NUMBER, events=OBJECTS),
    "required": ["id", "kind", "label", "state", "asked", "last", "events"],
}  # fmt: skip


def preview_file(job: Job, step: int, index: int) -> Path | None:
    """The file of a preview that the job itself has announced; None for anything else."""
    events = [event for _, event in job.log.since(0)]
    for event in events:
        if isinstance(event, Preview) and (event.step, event.index) == (step, index):
            return Path(job.run_dir or ".") / event.file
    return None


def watching(runner: JobRunner, queue: Queue) -> list[Route]:
    """The job with its events, and its preview pictures."""

    def job(asked: Asked) -> object:
        view = runner.view(asked.query.get("id", ""), asked.query.get("after", 0))
        return {"job": view, "queue": queue.brief()}

    def preview(asked: Asked) -> Path | None:
        current, at = runner.job, asked.path
        path = preview_file(current, at["step"], at["index"]) if current and current.id == at["id"] else None
        return path if path and path.is_file() else None

    known = {**JOB, "type": ["object", "null"]}
    step = {**NUMBER, "minimum": SHEET, "description": "-1 for the sheet of a grid"}
    after = {**NUMBER, "description": "with `id`: only events with a greater number"}
    return [
        Route("GET", "job", "What is at work, or was last, with its events; and how many wait", job,
              query={"id": TEXT, "after": after}, returns=record(job=known, queue=OBJECT), public=True),
        Route("GET", "job/{id}/preview/{step}/{index}", "A preview picture of that job", preview,
              params={"id": TEXT, "step": step, "index": NUMBER}, picture=True, public=True),
    ]  # fmt: skip
