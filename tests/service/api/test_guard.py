"""What stands before the routes: the token, the names of the service, other sites, sizes, headers."""

import asyncio
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from innerloop.core.errors import InputError
from innerloop.service.api.app import create_app
from innerloop.service.api.guard import KnownHost
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.store import JobStore
from service.api.standing import completed, now, pending

TOKEN = "0123456789abcdef-token"
LIST = "/api/training/tasks"
OPEN = ("/", "/healthz", "/docs", "/openapi.json", "/dashboard/index.html", "/docs-files/swagger-ui.css")
LEAST = 4 * 2**20
"""Bytes that a body may have."""


@pytest.fixture(scope="module")
def guarded_app(kept_store: JobStore, home: Path) -> FastAPI:
    return create_app(kept_store, home / "jobs", ServiceSettings(host="0.0.0.0", token=TOKEN))


@pytest.fixture(scope="module")
def kept_guarded(guarded_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(guarded_app, base_url="http://anything.example") as client:
        yield client


@pytest.fixture
def guarded(kept_guarded: TestClient, store: JobStore) -> TestClient:
    """A service that asks for a token."""
    return kept_guarded


def sent(token: bytes, scheme: bytes = b"Bearer ") -> dict[str, Any]:
    return {"headers": {"Authorization": scheme + token}}


def test_the_token_opens_everything(guarded: TestClient) -> None:
    for scheme in (b"Bearer ", b"bearer ", b"BEARER  "):
        assert guarded.get(LIST, **sent(TOKEN.encode(), scheme)).status_code == 200
    assert guarded.get("/metrics", **sent(TOKEN.encode())).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        {},
        sent(b""),
        sent(b"wrong"),
        sent(TOKEN[:-1].encode()),
        sent(TOKEN.encode() + b"x"),
        sent(TOKEN.upper().encode()),
        sent(TOKEN.encode(), b"Basic "),
        sent(TOKEN.encode(), b""),
        sent("tökén-0123456789".encode()),
        sent(b"\xff\xfe\x80"),
        {"params": {"token": TOKEN}},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [LIST, "/metrics", f"{LIST}/{'0' * 24}/events", "/nowhere"])
def test_without_the_token_nothing_is_told(guarded: TestClient, given: dict[str, Any], path: str) -> None:
    answer = guarded.get(path, **given)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json() == {"detail": "give the service's token: Authorization: Bearer TOKEN"}


def test_without_the_token_nothing_is_done(guarded: TestClient, store: JobStore) -> None:
    job = pending(store)
    path = f"/api/training/meta-tasks/{job.id}"
    for method, place in (("POST", f"{path}/start"), ("DELETE", path), ("POST", LIST), ("OPTIONS", path)):
        assert guarded.request(method, place, json={"name": "a"}).status_code == 401
    assert now(store, job.id) == job
    assert store.page(None).total == 1


@pytest.mark.parametrize("path", OPEN)
def test_the_pages_themselves_need_no_token(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("climb", ["..", "%2e%2e", ".%2E", "..%2f..", "%2e%2e%2f%2e%2e"])
def test_no_way_leads_from_an_open_folder_to_what_is_closed(guarded: TestClient, climb: str) -> None:
    for start in ("/dashboard/", "/docs-files/"):
        for end in ("/api/training/tasks", "/metrics", "/app.py", "/api/app.py", "/etc/passwd"):
            answer = guarded.get(start + climb + end)
            assert answer.status_code in (401, 404)
            assert "items" not in answer.text


def test_tokens_are_compared_in_constant_time(guarded: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for token in (b"short", TOKEN.encode(), "ä".encode()):
        guarded.get(LIST, **sent(token))
    assert all(type(one) is type(other) is bytes for one, other in compared)
    # Whatever is sent is compared with the whole token, and nothing is decided before that.
    assert [other for _, other in compared] == 3 * [TOKEN.encode()]


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "192.168.1.7", "example.org", "localhost.example.org", "127.0.0.1.example.org"],
)
def test_nothing_listens_beyond_loopback_without_a_token(host: str) -> None:
    with pytest.raises(InputError, match="listens at loopback only"):
        ServiceSettings(host=host)
    assert ServiceSettings(host=host, token=TOKEN).hosts == ("*",)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert ServiceSettings(host=host).token is None


@pytest.mark.parametrize(
    "token", ["", "short", "x" * 15, "with a space in it", "ümlaut-0123456789", "line\n" * 9]
)
def test_a_token_that_is_none_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(InputError) as refusal:
        ServiceSettings(token=token)
    assert not token or f" {token} " not in str(refusal.value).replace("too short", "")


def test_the_settings_do_not_show_their_token() -> None:
    assert TOKEN not in repr(ServiceSettings(token=TOKEN))


def test_a_port_that_there_is_not_is_refused() -> None:
    for port in (-1, 65536):
        with pytest.raises(InputError, match="there is no port"):
            ServiceSettings(port=port)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]", 200),
        ("[::1]:8000", 200),
        ("rebound.example", 400),
        ("localhost.rebound.example", 400),
        ("rebound.example:8000", 400),
        ("192.168.1.7", 400),
        ("", 400),
        ("[", 400),
        ("[::1", 400),
    ],
)
def test_without_a_token_the_service_answers_to_its_own_names_alone(
    client: TestClient, host: str, status: int
) -> None:
    for method, path in (("GET", LIST), ("GET", "/"), ("POST", LIST), ("GET", "/healthz")):
        answer = client.request(method, path, headers={"Host": host}, json={"name": "a"})
        assert answer.status_code == (201 if (method, status) == ("POST", 200) else status)
        if status == 400:
            assert "is not called by this name" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("names", "host", "status"),
    [
        (("jobs.example.org",), "jobs.example.org", 200),
        (("Jobs.Example.org",), "JOBS.example.ORG:443", 200),
        (("jobs.example.org",), "localhost", 400),
        (("*.example.org",), "jobs.example.org", 200),
        (("*.example.org",), "example.org", 400),
        (("*.example.org",), "badexample.org", 400),
        (("*",), "whatever", 200),
    ],
)
def test_the_service_answers_to_the_names_it_is_given(names: tuple[str, ...], host: str, status: int) -> None:
    guard = KnownHost(PlainTextResponse("passed"), ServiceSettings(allowed_hosts=names).hosts)
    assert TestClient(guard, base_url=f"http://{host}").get("/").status_code == status


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "anything"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "https://rebound.example"}, True),
        ({"Origin": "null"}, True),
        ({"Origin": "http://localhost:9999"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_pages_of_other_sites_change_nothing(
    client: TestClient, store: JobStore, headers: dict[str, str], refused: bool
) -> None:
    job = pending(store)
    path = f"/api/training/meta-tasks/{job.id}"
    answer = client.post(f"{path}/start", headers=headers)
    assert answer.status_code == (403 if refused else 200)
    assert client.get(path, headers=headers).status_code == 200
    assert client.delete(path, headers=headers).status_code == (403 if refused else 204)
    if refused:
        assert answer.json() == {"detail": "pages of other sites change nothing here"}
        assert now(store, job.id) == job


def test_a_body_that_says_it_is_too_large_is_refused_unread(client: TestClient) -> None:
    answer = client.post(LIST, content=b"{}", headers={"Content-Length": str(LEAST + 1)})
    assert answer.status_code == 413
    assert answer.json() == {"detail": f"the body is larger than {LEAST} bytes"}
    assert client.post(LIST, content=b"{}", headers={"Content-Length": "9" * 5000}).status_code == 413


def test_a_body_that_turns_out_too_large_is_refused_at_once(app: FastAPI, client: TestClient) -> None:
    given = 0

    async def run() -> int:
        async def receive() -> dict[str, Any]:
            nonlocal given
            given += 1
            return {"type": "http.request", "body": b" " * 2**20, "more_body": True}

        status: list[int] = []

        async def send(message: Any) -> None:
            status.extend([message["status"]] if message["type"] == "http.response.start" else [])

        await app(scope("POST", LIST, {b"host": b"localhost"}), receive, send)  # type: ignore[arg-type]
        return status[0]

    assert asyncio.run(run()) == 413
    assert given == 5


def scope(method: str, path: str, headers: dict[bytes, bytes]) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": list(headers.items()),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }


@pytest.mark.parametrize("length", [b"\xb2", b"-1", b"x", b""])
def test_a_length_that_is_none_is_no_fault_of_the_service(client: TestClient, length: bytes) -> None:
    answer = client.post(LIST, content=b'{"name": "a"}', headers={b"Content-Length": length})
    assert answer.status_code < 500


@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_body_of_the_most_bytes_is_read_whole(client: TestClient, in_pieces: bool) -> None:
    text = b'{"name": "a"}'
    raw = text + b" " * (LEAST - len(text))
    pieces = iter([raw[: 2**20], raw[2**20 :]]) if in_pieces else raw
    answer = client.post(LIST, content=pieces, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201
    answer = client.post(LIST, content=raw + b" ", headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


@pytest.mark.parametrize("path", [*OPEN, LIST, "/metrics", "/nowhere", f"{LIST}/x"])
def test_every_answer_tells_browsers_not_to_be_misled(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert ("unsafe-inline" in policy) == (path == "/docs")
    assert "Access-Control-Allow-Origin" not in headers


def test_refusals_carry_the_headers_too(client: TestClient) -> None:
    assert client.get("/", headers={"Host": "rebound.example"}).headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (LIST, {"GET", "POST"}),
        (f"{LIST}/{'0' * 24}", {"GET", "DELETE"}),
        (f"{LIST}/{'0' * 24}/start", {"POST"}),
        (f"{LIST}/{'0' * 24}/events", {"GET"}),
        ("/metrics", {"GET"}),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "HEAD", "TRACE"])
def test_a_method_that_there_is_not_is_answered_with_those_that_there_are(
    client: TestClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/", "/healthz", "/dashboard/index.html"])
def test_whoever_watches_over_the_service_may_ask_by_head(guarded: TestClient, path: str) -> None:
    answer = guarded.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_health_tells_the_version_and_nothing_of_the_jobs(client: TestClient, store: JobStore) -> None:
    completed(store)
    answer = client.get("/healthz").json()
    assert answer.keys() == {"status", "version", "store"}
    assert (answer["status"], answer["store"]) == ("ok", "reached")
