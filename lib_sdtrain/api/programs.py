"""All routes: what the tab asks for, what other programs can do, and the description of both."""
from __future__ import annotations

from lib_sdtrain.api.merging_live_routes import live_commands, live_viewing
from lib_sdtrain.api.openapi import document
from lib_sdtrain.api.programs_dataset import DatasetPrograms, PreparingPrograms
from lib_sdtrain.api.programs_history import HistoryPrograms
from lib_sdtrain.api.programs_models import ModelPrograms
from lib_sdtrain.api.programs_train import TrainPrograms
from lib_sdtrain.api.routing import OBJECT, Route
from lib_sdtrain.api.sampling_routes import sample_viewing
from lib_sdtrain.api.services import Services
from lib_sdtrain.api.watching import watching


def history_programs(services: Services) -> HistoryPrograms:
    """The answers about queue and history."""
    return HistoryPrograms(services.queue, services.history, services.removal, services.train)


def viewing_routes(services: Services) -> list[Route]:
    """What the tab asks for; there without `--api` too."""
    return [
        *watching(services.runner, services.queue), *sample_viewing(services.sample),
        *history_programs(services).viewing(), *DatasetPrograms(services.dataset).viewing(),
        *PreparingPrograms(services.preparing).viewing(),
        *live_viewing(services.merge.live),
    ]


def program_routes(services: Services) -> list[Route]:
    """All routes for programs. `openapi.json` describes them and those of the page."""
    routes = [
        *TrainPrograms(services.train, services.queue).routes(), *DatasetPrograms(services.dataset).routes(),
        *PreparingPrograms(services.preparing).routes(),
        *history_programs(services).routes(),
        *ModelPrograms(services.merge, services.sample, services.queue).routes(), *live_commands(services.merge.live),
    ]
    described = document([*routes, *viewing_routes(services)])
    return [*routes, Route("GET", "openapi.json", "This description", lambda asked: described, returns=OBJECT)]
