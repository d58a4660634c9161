"""Routes as data: what each takes and answers is declared once, checked on the way in, and described as OpenAPI.

Every mistake is answered with 422 and `{"problems": [{"what", "where", "fix"}]}`, whoever notices it.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, Response

from lib_sdtrain.api.access import Access
from lib_sdtrain.errors import Problem, UserError
from lib_sdtrain.settings.parse import nearest
from lib_sdtrain.textfiles import plain_json

PREFIX = "/sdtrain/v1"
MOST_BYTES = 8 * 2**20
PNG, JPEG = "image/png", "image/jpeg"
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,),
    "array": (list,), "null": (type(None),),
}  # fmt: skip

Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "minimum": 0, "maximum": 2**53}
ANYTHING: Schema = {}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}


def record(**properties: Schema) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


@dataclass(frozen=True)
class Asked:
    """What came with a request: parts of the path, the query (a list where it may be repeated), the JSON body."""

    path: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)


Answer = Callable[[Asked], Any]


@dataclass(frozen=True)
class Route:
    """`method` and `path` below /sdtrain/v1/. An answer that is a `Path` or bytes (JPEG) is sent as a picture, None
    is a 404.

    `public`: the tab itself asks for it, so that a logged-in page may. `returns` is the JSON answer's schema.
    """

    method: str
    path: str
    summary: str
    answer: Answer
    body: Schema | None = None
    query: Mapping[str, Schema] = field(default_factory=dict)
    params: Mapping[str, Schema] = field(default_factory=dict)
    returns: Schema = field(default_factory=dict)
    picture: bool = False
    public: bool = False


def add_route(app: FastAPI, route: Route, access: Access) -> None:
    """Serve a route."""
    guard = access.page if route.public else access.program

    def endpoint(request: Request, body: Any = Depends(_read_body)) -> Response:  # noqa: B008 - FastAPI's form
        guard(request)
        try:
            _check_site(request)
            if isinstance(body, UserError):
                raise body
            asked = Asked(_path(route, request), _query(route, request), _body(route, body))
            return _answered(route, route.answer(asked))
        except UserError as error:
            return _json({"problems": [vars(problem) for problem in error.problems]}, 422)

    app.add_api_route(
        f"{PREFIX}/{route.path}", endpoint, methods=[route.method], name=f"sdtrain {route.method} {route.path}",
        summary=route.summary, openapi_extra=None, include_in_schema=False, response_class=Response,
    )  # fmt: skip


def _answered(route: Route, found: Any) -> Response:
    if not route.picture:
        return _json(found)
    kept = {"Cache-Control": "private, max-age=86400"}
    if isinstance(found, bytes):
        return Response(found, media_type=JPEG, headers=kept)
    if not isinstance(found, Path):
        raise HTTPException(404, "no such picture")
    return FileResponse(found, media_type=PNG, headers=kept)


def _json(content: Any, status: int = 200) -> Response:
    """ASCII only: a file's name need not be valid Unicode."""
    text = json.dumps(plain_json(content), ensure_ascii=True, allow_nan=False)
    return Response(text, status, {"Cache-Control": "no-store"}, "application/json")


def _check_site(request: Request) -> None:
    """A page of another site may command only if the server's own rules for other origins let it (CORS).

    Browsers ask those rules before they send JSON, and before nothing else that a page can send.
    """
    site = request.headers.get("sec-fetch-site") or _site_of(request)
    if request.method != "GET" and site not in ("none", "same-origin") and not _is_json(request):
        raise UserError("this came from a page of another site", where="request", fix="send application/json")


def _site_of(request: Request) -> str:
    """For browsers that do not say the site, as on plain http in a network; programs tell no origin."""
    origin = request.headers.get("origin")
    return "none" if origin is None or urlsplit(origin).netloc == request.headers.get("host") else "cross-site"


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


async def _read_body(request: Request) -> Any:
    """The JSON body ({} for none), or the mistake in it."""
    if request.method in ("GET", "DELETE"):
        return {}
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > MOST_BYTES:
            return UserError(f"it is larger than {MOST_BYTES} bytes", where="body")
    if not found:
        return {}
    if not _is_json(request):
        return UserError("it is not called JSON", where="body", fix="send it with Content-Type: application/json")
    try:
        body = json.loads(bytes(found), parse_constant=_no_number)
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return UserError(f"it is not valid JSON: {error}"[:300].encode("utf-8", "replace").decode(), where="body")
    return body


def _no_number(text: str) -> Any:
    message = f"{text} is no JSON"
    raise ValueError(message)


def _path(route: Route, request: Request) -> dict[str, Any]:
    return {name: _read(schema, request.path_params[name], name) for name, schema in route.params.items()}


def _query(route: Route, request: Request) -> dict[str, Any]:
    unknown = sorted(set(request.query_params) - set(route.query))
    if unknown:
        raise UserError("unknown name", where=unknown[0], fix=_known(list(route.query)))
    found: dict[str, Any] = {}
    for name, schema in route.query.items():
        given = request.query_params.getlist(name)
        if schema.get("type") == "array":
            found[name] = [_read(schema["items"], text, name) for text in given]
        elif given:
            found[name] = _read(schema, given[-1], name)
    return found


def _read(schema: Schema, text: str, where: str) -> Any:
    if schema.get("type") != "integer":
        return text
    if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit() or len(text) > 16:
        raise UserError(f"{text[:40]!r} is not a whole number", where=where)
    number = int(text)
    if number < schema.get("minimum", number):
        raise UserError(f"{number} is too small", where=where, fix=f"at least {schema['minimum']}")
    if number > schema.get("maximum", number):
        raise UserError(f"{number} is too large", where=where, fix=f"at most {schema['maximum']}")
    return number


def _body(route: Route, body: Any) -> dict[str, Any]:
    """The body as far as its schema's top level says; what is below is the answer's own to judge."""
    if not isinstance(body, dict):
        raise UserError("it is not an object", where="body", fix="send {} or more")
    if route.body is None:
        known: Mapping[str, Any] = {}
    else:
        known = route.body.get("properties", {})
    problems = []
    closed = route.body is None or route.body.get("additionalProperties") is False
    for name, value in body.items():
        if name not in known:
            if closed:
                problems.append(Problem("unknown name", name, _known(list(known), name)))
        elif not _fits(known[name], value):
            problems.append(Problem(f"{str(value)[:60]!r} is not {_words(known[name])}", name))
    problems += [Problem("a value is needed", name) for name in (route.body or {}).get("required", ())
                 if name not in body]  # fmt: skip
    if problems:
        raise UserError(problems)
    return body


def _known(names: list[str], name: str = "") -> str:
    if not names:
        return "nothing can be given here"
    return nearest(name, names) if name else f"known names: {', '.join(names)}"


def _fits(schema: Schema, value: Any) -> bool:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not kinds:
        return True
    if isinstance(value, bool):
        return "boolean" in kinds
    if "enum" in schema and value not in schema["enum"]:
        return False
    return any(isinstance(value, _TYPES[kind]) for kind in kinds)


def _words(schema: Schema) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    kinds = schema["type"]
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)
