"""Figures for Prometheus: jobs as the store has them, requests by route, and no series without end."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from innerloop.service.api.app import create_app
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore
from service.api.standing import in_state, pending

Labels = frozenset[tuple[str, str]]


@pytest.fixture
def counted(store: JobStore, folder: Path) -> TestClient:
    """A service that has counted nothing yet."""
    return TestClient(create_app(store, folder, ServiceSettings()), base_url="http://localhost")


def figures(client: TestClient, name: str) -> dict[Labels, float]:
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        frozenset(sample.labels.items()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name
    }


def labels(**given: str) -> Labels:
    return frozenset(given.items())


def test_jobs_are_counted_by_kind_and_state_as_the_store_has_them(
    client: TestClient, store: JobStore
) -> None:
    for kind in (Kind.META, Kind.ADAPTATION):
        for state in State:
            if state is not State.QUEUED:
                in_state(store, kind, state)
    for _ in range(3):
        in_state(store, Kind.LLM, State.QUEUED)
    shown = figures(client, "innerloop_jobs")
    counts = store.counts()
    assert len(shown) == len(Kind) * len(State)
    for kind in Kind:
        for state in State:
            assert shown[labels(kind=kind, state=state)] == counts.get((kind, state), 0)
    assert shown[labels(kind="llm-tasks", state="queued")] == 3


def test_requests_are_counted_by_the_routes_pattern(counted: TestClient, store: JobStore) -> None:
    identifiers = [pending(store).id for _ in range(3)]
    for identifier in identifiers:
        counted.get(f"/api/training/meta-tasks/{identifier}")
    counted.get(f"/api/training/meta-tasks/{'0' * 24}")
    counted.post("/api/training/tasks", json={"name": "a"})
    shown = figures(counted, "innerloop_requests_total")
    path = "/api/training/meta-tasks/{identifier}"
    assert shown[labels(method="GET", route=path, status="200")] == 3
    assert shown[labels(method="GET", route=path, status="404")] == 1
    assert shown[labels(method="POST", route="/api/training/tasks", status="201")] == 1
    text = counted.get("/metrics").text
    assert not any(identifier in text for identifier in identifiers)
    timed = figures(counted, "innerloop_request_seconds_count")
    assert timed[labels(method="GET", route=path)] == 4


def test_whatever_clients_make_up_the_series_do_not_multiply(counted: TestClient) -> None:
    for number in range(20):
        counted.get(f"/nowhere/{number}")
        counted.get(f"/dashboard/{number}")
        counted.get(f"/api/training/tasks/{number}")
        counted.request(f"METHOD{number}", "/api/training/tasks")
        counted.get("/", headers={"Host": f"rebound{number}.example"})
    shown = figures(counted, "innerloop_requests_total")
    assert len(shown) <= 6
    assert sum(shown.values()) == 100


def test_a_refusal_before_the_routes_is_counted(store: JobStore, folder: Path) -> None:
    token = "x" * 32
    app = create_app(store, folder, ServiceSettings(token=token))
    client = TestClient(app, headers={"Authorization": f"Bearer {token}"})
    client.get("/api/training/tasks", headers={"Authorization": "Bearer wrong"})
    shown = figures(client, "innerloop_requests_total")
    assert shown == {labels(method="GET", route="none", status="401"): 1}
