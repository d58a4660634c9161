"""Our own description of the routes, walked with made-up requests: documented answers only, and never a crash."""
from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib_sdtrain.api.routing import PREFIX
from lib_sdtrain.errors import UserError
from lib_sdtrain.settings.fields import declared
from lib_sdtrain.settings.run import RunSettings
from tests.api.sites import PRESET, client_of, draw_subject, run, services_in
from tests.fake_engine import FakeEngine

ODD = ["", " ", "a", "0", "-1", "1e400", "nan", "../..", "/etc/passwd", "\0", "x" * 300, "é\u202e", "a:b", "{toybox}",
       "toybox", "a.safetensors", "true", "[1, 2]", "{", "\ud800"]  # fmt: skip
ODD_VALUES = [None, True, 0, -1, 10**30, 0.5, -1e308, [], {}, [[]], [None], {"": {}}, {"a": [{"b": None}]}, *ODD]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi")
    services = services_in(folder, FakeEngine(str(draw_subject(folder / "subject"))))
    run(services, train__length=12)
    services.queue.hold()
    services.queue.add("train", {"preset": PRESET})
    client = client_of(services)
    client.raise_server_exceptions = False
    yield client, client.get(f"{PREFIX}/openapi.json").json(), services
    services.queue.close()
    services.runner.stop("now")


def operations(document: dict) -> list[tuple[str, str, dict]]:
    return [(path, method, found) for path, methods in sorted(document["paths"].items())
            for method, found in sorted(methods.items())]  # fmt: skip


def values(schema: dict) -> st.SearchStrategy:
    """Values that fit a schema, and often enough others."""
    return st.one_of(fitting(schema), st.sampled_from(ODD_VALUES))


def fitting(schema: dict, depth: int = 0) -> st.SearchStrategy:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([fitting(one, depth) for one in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object" and schema.get("properties"):
        parts = {name: fitting(one, depth + 1) for name, one in schema["properties"].items()}
        needed = {name: parts[name] for name in schema.get("required", ())}
        chosen = st.lists(st.sampled_from(sorted(parts)), max_size=4, unique=True)
        return chosen.flatmap(lambda names: st.fixed_dictionaries({**needed, **{name: parts[name] for name in names}}))
    if kind == "array":
        return st.lists(fitting(schema.get("items", {}), depth + 1), max_size=3)
    numbers = st.integers(schema.get("minimum"), schema.get("maximum")) if kind == "integer" else \
        st.floats(allow_nan=False, allow_infinity=False)  # fmt: skip
    return {"integer": numbers, "number": numbers, "boolean": st.booleans(),
            "string": st.sampled_from(ODD)}.get(kind, st.sampled_from(ODD_VALUES))  # fmt: skip


def sent(client, path: str, method: str, operation: dict, data) -> object:
    """The answer to a made-up request."""
    query = {}
    for parameter in operation.get("parameters", []):
        value = data.draw(values(parameter["schema"]))
        if parameter["in"] == "path":
            text = str(value).encode("utf-8", "replace").decode().strip("./") or "none"
            path = path.replace("{" + parameter["name"] + "}", quote(text, safe=""))
        elif data.draw(st.booleans()):
            query[parameter["name"]] = [str(one).encode("utf-8", "replace").decode()
                                        for one in (value if isinstance(value, list) else [value])]  # fmt: skip
    content, headers = None, {}
    if "requestBody" in operation:
        body = data.draw(values(operation["requestBody"]["content"]["application/json"]["schema"]))
        content, headers = json.dumps(body), {"Content-Type": "application/json"}
    return client.request(method.upper(), path, params=query, content=content, headers=headers)


def test_no_request_crashes_the_server_and_every_answer_is_documented(site):
    client, document, services = site
    everything = operations(document)

    @settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def walked(data):
        path, method, operation = data.draw(st.sampled_from(everything))
        answer = sent(client, path, method, operation, data)
        if services.runner.busy:
            services.runner.stop("now")
        services.queue.hold()
        assert answer.status_code < 500, (method, path, answer.text[:500])
        if str(answer.status_code) == "404" and "404" not in operation["responses"]:
            return  # the made-up name has led to another address
        assert str(answer.status_code) in operation["responses"], (method, path, answer.status_code)
        if answer.status_code == 422:
            assert all(set(problem) == {"what", "where", "fix"} for problem in answer.json()["problems"])

    walked()


def test_every_operation_is_reached_and_says_what_it_is_for(site):
    _, document, _ = site
    everything = operations(document)
    assert len(everything) >= 40
    assert all(found["summary"] and found["responses"]["200"] for _, _, found in everything)
    assert len({found["operationId"] for _, _, found in everything}) == len(everything)


def test_the_description_knows_every_setting(site):
    _, document, _ = site
    schema = document["paths"][f"{PREFIX}/plan"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    for item in declared(RunSettings):
        found = schema["properties"]["settings"]
        for part in item.path.split("."):
            found = found["properties"][part]
        assert found["title"] == item.meta.label


@pytest.mark.parametrize("content", ["{", '{"a": NaN}', '"\\ud800"', "[" * 100000, "1", "null", '{"how": 3}'])
def test_bodies_that_are_no_objects_are_told(site, content):
    client, _, _ = site
    answer = client.post(f"{PREFIX}/stop", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["problems"]


def test_a_page_of_another_site_cannot_command(site):
    client, _, _ = site
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site", "Content-Type": "text/plain"}):
        answer = client.post(f"{PREFIX}/queue-clear", headers=headers)
        assert answer.status_code == 422
        assert "another site" in answer.json()["problems"][0]["what"]
    assert client.post(f"{PREFIX}/queue-clear", content="{}", headers={"Content-Type": "text/plain"}).status_code == 422
    assert client.post(f"{PREFIX}/queue-clear").status_code == 200


@pytest.mark.parametrize(("origin", "status"), [
    ("http://other.example", 422), ("null", 422), ("http://testserver", 200),
])
def test_a_browser_that_says_no_more_than_its_origin_is_judged_by_that(site, origin, status):
    """As on plain http in a network, where browsers keep Sec-Fetch-Site to themselves."""
    client, _, _ = site
    assert client.post(f"{PREFIX}/queue-clear", headers={"Origin": origin}).status_code == status
    assert client.post(f"{PREFIX}/queue-clear", json={}, headers={"Origin": origin}).status_code == 200


def test_a_file_with_a_name_that_is_no_unicode_is_listed(tmp_path: Path):
    services = services_in(tmp_path)
    folder = tmp_path / "outputs" / "runs"
    name = b"20260101-000000-caf\xe9".decode("utf-8", "surrogateescape")
    (folder / name).mkdir(parents=True)
    (folder / name / "config.yaml").write_text("", "utf-8")
    answer = client_of(services).get(f"{PREFIX}/view/history")
    assert answer.status_code == 200


@pytest.mark.parametrize("odd", [{}, None, True, 3, [], [["a"]]])
def test_what_is_no_text_in_a_list_of_a_merge_is_told(site, odd):
    client, _, services = site
    answer = client.post(f"{PREFIX}/merge/plan", json={"a": "toybox", "b": "toybox", "presets": [odd, "x.txt"]})
    assert answer.status_code == 422
    assert "is no text" in answer.text
    for role in ("presets", "model", "lora"):
        with pytest.raises(UserError, match="is no text"):
            services.merge.files.many([odd], role)


def test_numbers_beyond_what_the_description_allows_are_refused(site):
    client, _, _ = site
    for after, status in ((2**53, 200), (2**53 + 1, 422), (-1, 422)):
        assert client.get(f"{PREFIX}/job?after={after}").status_code == status
