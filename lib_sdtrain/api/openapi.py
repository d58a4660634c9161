"""The description of all routes for other programs: OpenAPI 3.0, made from the routes and the settings."""
from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from lib_sdtrain.api.routing import JPEG, PNG, PREFIX, Route

PROBLEMS = {
    "type": "object", "required": ["problems"],
    "properties": {"problems": {"type": "array", "items": {
        "type": "object", "required": ["what", "where", "fix"],
        "properties": {name: {"type": "string"} for name in ("what", "where", "fix")},
    }}},
}  # fmt: skip
DETAIL = {"type": "object", "properties": {"detail": {"type": "string"}}}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI document of the routes."""
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(f"{PREFIX}/{route.path}", {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.0.3", "info": {"title": "SD Train", "version": "1"}, "paths": paths,
        "components": {"securitySchemes": {"basic": {"type": "http", "scheme": "basic"}}},
        "security": [{"basic": []}, {}],
    }


def _operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": route.summary, "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}_{route.path}").strip("_"),
        "tags": [route.path.partition("/")[0]], "responses": _responses(route),
    }  # fmt: skip
    parameters = [{"name": name, "in": "path", "required": True, "schema": old_style(schema)}
                  for name, schema in route.params.items()]  # fmt: skip
    parameters += [{"name": name, "in": "query", "schema": old_style(schema)} for name, schema in route.query.items()]
    if parameters:
        found["parameters"] = parameters
    if route.method not in ("GET", "DELETE"):
        schema = old_style(route.body if route.body is not None else {"type": "object", "additionalProperties": False})
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}}
    return found


def _responses(route: Route) -> dict[str, Any]:
    def of(schema: Any, words: str) -> dict[str, Any]:
        return {"description": words, "content": {"application/json": {"schema": old_style(schema)}}}

    found = {"200": of(route.returns, "done"), "401": of(DETAIL, "who are you?"),
             "422": of(PROBLEMS, "what is wrong, where, and what to do")}  # fmt: skip
    if route.picture:
        binary = {"type": "string", "format": "binary"}
        content = {kind: {"schema": binary} for kind in (PNG, JPEG)}
        found["200"] = {"description": "a picture", "content": content}
        found["404"] = of(DETAIL, "there is no such picture")
    return found


def old_style(schema: Any) -> Any:
    """A schema of draft 2020-12 in OpenAPI 3.0's words, which know no lists of types and no exclusive numbers."""
    if isinstance(schema, list):
        return [old_style(part) for part in schema]
    if not isinstance(schema, dict):
        return copy.deepcopy(schema)
    found = {name: _part(name, part) for name, part in schema.items()}
    if "exclusiveMinimum" in found:
        found |= {"minimum": found["exclusiveMinimum"], "exclusiveMinimum": True}
    kinds = found.get("type")
    if isinstance(kinds, list):
        del found["type"]
        real = [kind for kind in kinds if kind != "null"]
        if len(real) < len(kinds):
            found["nullable"] = True
        if len(real) == 1:
            found["type"] = real[0]
        else:
            found["anyOf"] = [{"type": kind} for kind in real]
            if "pattern" in found:  # it speaks of text alone
                pattern = found.pop("pattern")
                found["anyOf"] = [{**one, "pattern": pattern} if one["type"] == "string" else one
                                  for one in found["anyOf"]]  # fmt: skip
    return found


def _part(name: str, part: Any) -> Any:
    if name in ("enum", "default", "required"):
        return copy.deepcopy(part)
    if name == "properties":
        return {key: old_style(value) for key, value in part.items()}
    return old_style(part)
