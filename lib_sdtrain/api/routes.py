"""All routes of the program."""
from __future__ import annotations

from fastapi import FastAPI

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.programs import add_programs
from lib_sdtrain.api.sampling_routes import add_sampling
from lib_sdtrain.api.services import Services
from lib_sdtrain.api.watching import add_watching


def add_routes(app: FastAPI, services: Services, access: Access, programs: bool) -> None:
    """What the tab polls always, the rest when other programs are welcome (`--api`)."""
    add_watching(app, services.runner, access)
    add_sampling(app, services.sample, access)
    if programs:
        add_programs(app, services.train, access)
