"""All routes of the program, served."""
from __future__ import annotations

from fastapi import FastAPI

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.programs import program_routes, viewing_routes
from lib_sdtrain.api.routing import add_route
from lib_sdtrain.api.services import Services


def add_routes(app: FastAPI, services: Services, access: Access, programs: bool) -> None:
    """What the tab polls always, the rest when other programs are welcome (`--api`)."""
    for route in [*viewing_routes(services), *(program_routes(services) if programs else [])]:
        add_route(app, route, access)
