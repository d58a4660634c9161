"""What the tab polls: the job and its preview pictures. Read-only, and no path ever comes from the page."""
from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.queue import Queue
from lib_sdtrain.api.routing import finite
from lib_sdtrain.events import Preview
from lib_sdtrain.jobs import Job, JobRunner


def preview_file(job: Job, step: int, index: int) -> Path | None:
    """The file of a preview that the job itself has announced; None for anything else."""
    events = [event for _, event in job.log.since(0)]
    for event in events:
        if isinstance(event, Preview) and (event.step, event.index) == (step, index):
            return Path(job.run_dir or ".") / event.file
    return None


def add_watching(app: FastAPI, runner: JobRunner, access: Access, queue: Queue) -> None:
    """GET job and GET preview pictures."""

    def job(request: Request, id: str = "", after: int = 0) -> JSONResponse:  # noqa: A002 - name in the address
        access.page(request)
        document = {"job": finite(runner.view(id, after)), "queue": queue.brief()}
        return JSONResponse(document, headers={"Cache-Control": "no-store"})

    def preview(request: Request, job_id: str, step: int, index: int) -> FileResponse:
        access.page(request)
        current = runner.job
        path = preview_file(current, step, index) if current and current.id == job_id else None
        if path is None or not path.is_file():
            raise HTTPException(404, "no such preview")
        return FileResponse(path, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    app.add_api_route("/sdtrain/v1/job", job, methods=["GET"])
    app.add_api_route("/sdtrain/v1/job/{job_id}/preview/{step}/{index}", preview, methods=["GET"])
