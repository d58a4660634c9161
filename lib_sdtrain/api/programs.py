"""For other programs: what can be chosen, what would happen, start, resume, stop. Present with `--api` only."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse

from lib_sdtrain.api.access import Access
from lib_sdtrain.api.choice import Choice
from lib_sdtrain.api.service import TrainService
from lib_sdtrain.api.watching import finite
from lib_sdtrain.errors import Problems, UserError
from lib_sdtrain.settings.fields import declared, default_text
from lib_sdtrain.settings.parse import flatten
from lib_sdtrain.settings.run import Concept, RunSettings

PREFIX = "/sdtrain/v1"


def schema() -> dict[str, Any]:
    """Every setting with its type, range, default and help; `concept` holds those of a concept."""
    return {"settings": [_described(item) for item in declared(RunSettings)],
            "concept": [_described(item) for item in declared(Concept)]}  # fmt: skip


def _described(item: Any) -> dict[str, Any]:
    meta = item.meta
    described = {
        "path": item.path, "type": getattr(item.type, "__name__", str(item.type)), "default": default_text(item),
        "label": meta.label, "help": meta.help, "unit": meta.unit, "level": meta.level, "optional": item.optional,
        "choices": list(meta.choices), "minimum": meta.minimum, "maximum": meta.maximum,
    }
    return {name: value for name, value in described.items() if value not in (None, "", [])}


def choice_of(body: dict[str, Any]) -> Choice:
    """`{"preset": name, "settings": nested or dotted}`. Raises `UserError` for anything else."""
    problems = Problems()
    for name in sorted(set(body) - {"preset", "settings"}):
        problems.add("unknown name", where=name, fix="known: preset, settings")
    settings = body.get("settings", {})
    if not isinstance(settings, dict):
        problems.add("it is not a mapping of names to values", where="settings")
        settings = {}
    changes = flatten(RunSettings, {key: value for key, value in settings.items() if "concepts." not in key}, problems)
    problems.raise_if_any()
    changes |= {key: value for key, value in settings.items() if "concepts." in key}
    return Choice(str(body.get("preset") or ""), changes)


def add_programs(app: FastAPI, service: TrainService, access: Access) -> None:
    """Routes under /sdtrain/v1/: GET schema, checkpoints, presets, runs; POST plan, train, resume, stop."""

    def get(name: str, answer: Callable[[], Any]) -> None:
        def route(request: Request) -> JSONResponse:
            access.program(request)
            return JSONResponse(finite(answer()))

        app.add_api_route(f"{PREFIX}/{name}", route, methods=["GET"], name=f"sdtrain-{name}")

    def post(name: str, answer: Callable[[dict[str, Any]], Any]) -> None:
        def route(request: Request, body: dict = Body(default={})) -> JSONResponse:  # noqa: B008 - FastAPI's form
            access.program(request)
            try:
                return JSONResponse(finite(answer(body)))
            except UserError as error:
                lines = [vars(problem) for problem in error.problems]
                return JSONResponse({"problems": lines}, status_code=422)

        app.add_api_route(f"{PREFIX}/{name}", route, methods=["POST"], name=f"sdtrain-{name}")

    get("schema", schema)
    get("checkpoints", lambda: [
        {"name": entry.name, "title": entry.title, "loaded": entry.loaded} for entry in service.checkpoints()
    ])  # fmt: skip
    get("presets", service.presets.names)
    get("runs", lambda: [{**vars(run), "path": str(run.path)} for run in service.runs()])
    post("plan", lambda body: _plan(service, choice_of(body)))
    post("train", lambda body: service.start(choice_of(body)).as_dict())
    post("resume", lambda body: service.resume(str(body.get("run", "")), body.get("settings") or {}).as_dict())
    post("stop", lambda body: {"stopped": service.runner.stop(str(body.get("how", "save")), body.get("job"))})


def _plan(service: TrainService, choice: Choice) -> dict[str, Any]:
    outlook = service.outlook(choice)
    if outlook.problems:
        raise UserError(list(outlook.problems))
    return dict(outlook.document)
