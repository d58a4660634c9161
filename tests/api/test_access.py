"""Who may look, and who may command."""
from __future__ import annotations

import base64
from types import SimpleNamespace

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from lib_sdtrain.api.access import Access, parse_users

USERS = {"ann": "s3cret"}


def client(access: Access) -> TestClient:
    app = FastAPI()

    @app.get("/page")
    def page(request: Request) -> str:
        access.page(request)
        return "seen"

    @app.get("/program")
    def program(request: Request) -> str:
        access.program(request)
        return "done"

    return TestClient(app)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


OPEN = SimpleNamespace(auth=None, tokens={})
CLOSED = SimpleNamespace(auth={"bob": "x"}, tokens={"token-of-bob": "bob"})


def test_without_any_login_everything_is_open():
    page = client(Access(OPEN))
    assert page.get("/page").status_code == page.get("/program").status_code == 200


@pytest.mark.parametrize("path", ["/page", "/program"])
def test_a_page_login_closes_both_to_strangers(path):
    page = client(Access(CLOSED))
    assert page.get(path).status_code == 401
    assert page.get(path, cookies={"access-token": "guessed"}).status_code == 401


@pytest.mark.parametrize("cookie", ["access-token", "access-token-unsecure"])
def test_the_pages_own_session_may_look(cookie):
    assert client(Access(CLOSED)).get("/page", cookies={cookie: "token-of-bob"}).status_code == 200


def test_where_the_api_has_users_only_they_may_command():
    page = client(Access(CLOSED, USERS))
    assert page.get("/program", cookies={"access-token": "token-of-bob"}).status_code == 401
    assert page.get("/program", headers=basic("ann", "wrong")).status_code == 401
    assert page.get("/program", headers=basic("nobody", "s3cret")).status_code == 401
    assert page.get("/program", headers=basic("ann", "s3cret")).status_code == 200


@pytest.mark.parametrize("header", ["Basic", "Basic ###", "Bearer abc", "Basic //79"])
def test_broken_headers_are_refused_and_break_nothing(header):
    assert client(Access(CLOSED, USERS)).get("/program", headers={"Authorization": header}).status_code == 401


def test_users_are_read_as_the_webui_writes_them():
    assert parse_users("ann:one, bob:two:three") == {"ann": "one", "bob": "two:three"}
    assert parse_users(None) == {}
