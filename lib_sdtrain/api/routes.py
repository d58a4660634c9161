"""All routes of the program."""
from __future__ import annotations

from fastapi import FastAPI

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.merging_live_routes import live_viewing
from lib_sdtrain.api.programs import history_programs, program_routes
from lib_sdtrain.api.programs_dataset import DatasetPrograms
from lib_sdtrain.api.routing import add_route
from lib_sdtrain.api.sampling_routes import add_sampling
from lib_sdtrain.api.services import Services
from lib_sdtrain.api.watching import add_watching


def add_routes(app: FastAPI, services: Services, access: Access, programs: bool) -> None:
    """What the tab polls always, the rest when other programs are welcome (`--api`)."""
    add_watching(app, services.runner, access, services.queue)
    add_sampling(app, services.sample, access)
    looking = DatasetPrograms(services.dataset).viewing()
    routes = [*history_programs(services).viewing(), *looking, *live_viewing(services.merge.live)]
    for route in [*routes, *(program_routes(services) if programs else [])]:
        add_route(app, route, access)
