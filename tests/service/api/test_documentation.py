"""The API's own documentation: valid, whole, and readable without a network."""

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from innerloop.service.api.app import create_app
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.store import JobStore
from innerloop.service.kinds import KINDS

ACTIONS = ("start", "pause", "resume", "stop", "cancel")
READS = ("results", "progress", "metrics", "logs", "events", "model")
CONFLICTS = (*ACTIONS, "results", "model")


@pytest.fixture(scope="module")
def schema(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def operations(schema: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    }


def test_it_lists_every_route_of_every_kind(schema: dict[str, Any]) -> None:
    expected = {("GET", "/healthz"), ("GET", "/metrics")}
    for kind in Kind:
        root = f"/api/training/{kind}"
        one = f"{root}/{{identifier}}"
        expected |= {("POST", root), ("GET", root), ("GET", one), ("DELETE", one)}
        expected |= {("POST", f"{one}/{action}") for action in ACTIONS}
        expected |= {("GET", f"{one}/{part}") for part in READS}
    assert operations(schema).keys() == expected
    names = [operation["operationId"] for operation in operations(schema).values()]
    assert len(set(names)) == len(names)


def test_it_is_openapi_3_1(schema: dict[str, Any]) -> None:
    assert schema["openapi"].startswith("3.1")
    # What 3.1 says of schemas is JSON Schema itself.
    for part in schema["components"]["schemas"].values():
        jsonschema_rs.meta.validate({**part, "$schema": "https://json-schema.org/draft/2020-12/schema"})
    for operation in operations(schema).values():
        assert operation["summary"]
        assert operation["tags"]
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d", status)
            assert answer["description"]
    references = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(schema)))
    assert references <= schema["components"]["schemas"].keys()


def test_every_operation_names_every_way_in_which_it_may_be_refused(schema: dict[str, Any]) -> None:
    for (method, path), operation in operations(schema).items():
        said = {int(status) for status in operation["responses"]}
        expected = {400, 401, 403, 413, 503}
        expected |= {422} if path.startswith("/api") else set()
        expected |= {404} if "{identifier}" in path else set()
        conflict = path.endswith(CONFLICTS) or method == "DELETE"
        expected |= {409} if conflict else set()
        assert {status for status in said if status >= 400} == expected, (method, path)
        assert len(said) == len(expected) + 1
        for status in expected:
            assert operation["responses"][str(status)]["content"].keys() == {"application/json"}


def test_every_kind_shows_an_example_that_is_taken(schema: dict[str, Any]) -> None:
    for kind in Kind:
        content = schema["paths"][f"/api/training/{kind}"]["post"]["requestBody"]["content"]
        (example,) = content["application/json"]["examples"].values()
        assert example["value"] == KINDS[kind].example


def test_the_page_is_read_without_a_network(client: TestClient) -> None:
    page = client.get("/docs").text
    assert not re.search(r"""["'(]\s*(https?:)?//""", page)
    own = re.findall(r"""(?:src|href)="([^"]+)\"""", page)
    assert len(own) >= 3
    for path in [*own, "/openapi.json"]:
        answer = client.get(path)
        assert answer.status_code == 200
        assert len(answer.content) > 0


def test_a_service_with_a_token_says_so(kept_store: JobStore, home: Path, schema: dict[str, Any]) -> None:
    assert "securitySchemes" not in schema["components"]
    settings = ServiceSettings(token="x" * 32)
    closed = create_app(kept_store, home / "jobs", settings).openapi()
    assert closed["components"]["securitySchemes"] == {"HTTPBearer": {"type": "http", "scheme": "bearer"}}
    for (_, path), operation in operations(closed).items():
        assert ("security" in operation) == (path != "/healthz")
    assert operations(closed).keys() == operations(schema).keys()
