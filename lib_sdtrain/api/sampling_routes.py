"""What the Sample sub-tab asks for beside the job: recent pictures. Read-only, and no path ever comes from the page."""
from __future__ import annotations

from pathlib import Path

from lib_sdtrain.api.routing import TEXT, Asked, Route, record
from lib_sdtrain.api.sampling import SampleService


def sample_viewing(service: SampleService) -> list[Route]:
    """The list of recent pictures, and each of them."""

    def recent(asked: Asked) -> object:
        del asked
        return {"pictures": [{"id": one.id, "infotext": one.infotext} for one in service.recent if one.file.is_file()]}

    def picture(asked: Asked) -> Path | None:
        path = service.shown(asked.path["id"])
        return path if path and path.is_file() else None

    one = {**record(id=TEXT, infotext=TEXT), "required": ["id", "infotext"]}
    return [
        Route("GET", "sample/recent", "Pictures that were drawn, the newest first", recent,
              returns=record(pictures={"type": "array", "items": one}), public=True),
        Route("GET", "sample/picture/{id}", "One of them", picture, params={"id": TEXT}, picture=True, public=True),
    ]  # fmt: skip
