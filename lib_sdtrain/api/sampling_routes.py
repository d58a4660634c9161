"""What the Sample sub-tab asks for beside the job: recent pictures. Read-only, and no path ever comes from the page."""
from __future__ import annotations

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.sampling import SampleService


def add_sampling(app: FastAPI, service: SampleService, access: Access) -> None:
    """GET the list of recent pictures, and each of them."""

    def recent(request: Request) -> JSONResponse:
        access.page(request)
        pictures = [{"id": one.id, "infotext": one.infotext} for one in service.recent if one.file.is_file()]
        return JSONResponse({"pictures": pictures}, headers={"Cache-Control": "no-store"})

    def picture(request: Request, picture_id: str) -> FileResponse:
        access.page(request)
        path = service.shown(picture_id)
        if path is None or not path.is_file():
            raise HTTPException(404, "no such picture")
        return FileResponse(path, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    app.add_api_route("/sdtrain/v1/sample/recent", recent, methods=["GET"])
    app.add_api_route("/sdtrain/v1/sample/picture/{picture_id}", picture, methods=["GET"])
