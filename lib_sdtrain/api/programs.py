"""Everything that other programs can do, and its description. Present with `--api` only."""
from __future__ import annotations

from lib_sdtrain.api.merging_live_routes import live_commands, live_viewing
from lib_sdtrain.api.openapi import document
from lib_sdtrain.api.programs_dataset import DatasetPrograms
from lib_sdtrain.api.programs_history import HistoryPrograms
from lib_sdtrain.api.programs_models import ModelPrograms
from lib_sdtrain.api.programs_train import TrainPrograms
from lib_sdtrain.api.routing import OBJECT, Route
from lib_sdtrain.api.services import Services


def history_programs(services: Services) -> HistoryPrograms:
    """The answers about queue and history."""
    return HistoryPrograms(services.queue, services.history, services.removal, services.train)


def program_routes(services: Services) -> list[Route]:
    """All routes for programs. `openapi.json` describes them and those of the page."""
    history, dataset = history_programs(services), DatasetPrograms(services.dataset)
    routes = [
        *TrainPrograms(services.train, services.queue).routes(), *dataset.routes(), *history.routes(),
        *ModelPrograms(services.merge, services.sample, services.queue).routes(), *live_commands(services.merge.live),
    ]
    described = document([*routes, *dataset.viewing(), *history.viewing(), *live_viewing(services.merge.live)])
    return [*routes, Route("GET", "openapi.json", "This description", lambda asked: described, returns=OBJECT)]
