"""Reading jobs: lists, one job, its results, progress, metrics and log."""

import math
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from innerloop.service.jobs.job import Kind, MetricValue
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore, Outcome, Report, StoreUnavailable
from service.api.standing import (
    LONG,
    RESULTS,
    completed,
    failed,
    in_state,
    pending,
    running,
    told,
)

PARTS = ("", "/results", "/progress", "/metrics", "/logs", "/events", "/model")


@pytest.mark.parametrize("kind", Kind)
def test_a_list_holds_the_kinds_jobs_newest_first_by_pages(
    client: TestClient, store: JobStore, kind: Kind
) -> None:
    made = [pending(store, kind, f"number {number}").id for number in range(5)]
    pending(store, Kind.META if kind is not Kind.META else Kind.TASKS)
    path = f"/api/training/{kind}"
    whole = client.get(path).json()
    assert [item["id"] for item in whole["items"]] == made[::-1]
    assert (whole["total"], whole["skip"], whole["limit"]) == (5, 0, 50)
    part = client.get(path, params={"skip": 1, "limit": 2}).json()
    assert [item["name"] for item in part["items"]] == ["number 3", "number 2"]
    assert (part["total"], part["skip"], part["limit"]) == (5, 1, 2)
    assert client.get(path, params={"skip": 99}).json()["items"] == []


def test_a_list_holds_the_states_that_are_asked_for(client: TestClient, store: JobStore) -> None:
    jobs = {state: in_state(store, Kind.META, state).id for state in State if state is not State.QUEUED}
    jobs[State.QUEUED] = in_state(store, Kind.META, State.QUEUED).id
    for state in State:
        found = client.get("/api/training/meta-tasks", params={"state": state}).json()
        assert [item["id"] for item in found["items"]] == [jobs[state]]
        assert found["total"] == 1
    two = client.get("/api/training/meta-tasks?state=failed&state=paused").json()
    assert {item["state"] for item in two["items"]} == {"failed", "paused"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("skip=-1", "skip"),
        ("skip=x", "skip"),
        (f"skip={2**64}", "skip"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("state=done", "state"),
        ("state=pending&state=", "state"),
    ],
)
def test_a_list_that_cannot_be_is_refused_with_the_field(client: TestClient, query: str, field: str) -> None:
    answer = client.get(f"/api/training/tasks?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:2] == ["query", field]


def test_a_parameter_that_nobody_knows_is_refused_and_not_ignored(
    client: TestClient, store: JobStore
) -> None:
    answer = client.get("/api/training/tasks?status=failed&limit=1&status=x")
    assert answer.status_code == 422
    (entry,) = answer.json()["detail"]
    assert entry["loc"] == ["query", "status"]
    assert entry["msg"] == "there is no such parameter; there are: limit, skip, state"
    path = f"/api/training/meta-tasks/{pending(store).id}"
    for part in PARTS:
        assert client.get(f"{path}{part}?step=1").status_code == 422
    assert client.post(f"{path}/start?now=1").status_code == 422


@pytest.mark.parametrize("kind", Kind)
def test_the_job_of_another_kind_and_no_job_are_not_found_and_no_id_is_refused(
    client: TestClient, store: JobStore, kind: Kind
) -> None:
    other = pending(store, Kind.META if kind is not Kind.META else Kind.TASKS)
    for part in PARTS:
        for identifier in (other.id, "0" * 24):
            answer = client.get(f"/api/training/{kind}/{identifier}{part}")
            assert answer.status_code == 404
            assert answer.json() == {"detail": f"there is no job {identifier} among {kind}"}
        for identifier in ("x", "0" * 25, "A" * 24, "..%2f..%2fetc", "%00", "0" * 23 + "%0a"):
            answer = client.get(f"/api/training/{kind}/{identifier}{part}")
            # What holds a slash is the path of nothing.
            assert answer.status_code == (404 if "%2f" in identifier else 422)
    assert client.delete(f"/api/training/{kind}/{other.id}").status_code == 404
    assert client.delete(f"/api/training/{kind}/x").status_code == 422


@pytest.mark.parametrize("kind", Kind)
def test_a_job_that_completed_tells_its_results_progress_metrics_and_log(
    client: TestClient, store: JobStore, kind: Kind
) -> None:
    job = completed(store, kind)
    path = f"/api/training/{kind}/{job.id}"
    details, progress = client.get(path).json(), client.get(f"{path}/progress").json()
    assert (details["state"], details["progress"], details["current_episode"]) == ("completed", 100, 2)
    assert details["metrics"] == {"loss": 0.25}
    assert progress == {name: details[name] for name in progress}
    assert progress["total_episodes"] == 100
    results = client.get(f"{path}/results").json()
    assert results == {"id": job.id, "state": "completed", "results": RESULTS[kind]}
    assert client.get(f"{path}/metrics").json() == {
        "id": job.id,
        "values": [
            {"number": 1, "step": 1, "name": "loss", "value": 0.5},
            {"number": 2, "step": 2, "name": "loss", "value": 0.25},
        ],
        "next": None,
    }
    lines = [{"number": 1, "text": "begins"}, {"number": 2, "text": "ends"}]
    assert client.get(f"{path}/logs").json() == {"id": job.id, "lines": lines, "next": None}


@pytest.mark.parametrize("state", [state for state in State if state is not State.COMPLETED])
def test_there_are_no_results_and_no_model_before_the_end(
    client: TestClient, store: JobStore, state: State
) -> None:
    path = f"/api/training/meta-tasks/{in_state(store, Kind.META, state).id}"
    for part in ("results", "model"):
        answer = client.get(f"{path}/{part}")
        assert answer.status_code == 409
        assert f"the job is {state} and has no" in answer.json()["detail"]


def test_a_failed_job_says_why(client: TestClient, store: JobStore) -> None:
    path = f"/api/training/meta-tasks/{failed(store).id}"
    assert client.get(path).json()["error_message"] == "the disk is full"
    assert client.get(f"{path}/progress").json()["error_message"] == "the disk is full"


def test_what_is_not_finite_is_null(client: TestClient, store: JobStore) -> None:
    claim = running(store)
    told(store, claim, [math.nan, math.inf, -math.inf, 1.0, math.nan])
    path = f"/api/training/meta-tasks/{claim.id}"
    values = client.get(f"{path}/metrics").json()["values"]
    assert [entry["value"] for entry in values] == [None, None, None, 1.0, None]
    assert client.get(path).json()["metrics"] == {"loss": None}
    assert client.get("/api/training/meta-tasks").json()["items"][0]["metrics"] == {"loss": None}


def test_metrics_are_chosen_by_name_step_and_place(client: TestClient, store: JobStore) -> None:
    claim = running(store)
    values = [MetricValue(step, name, step) for step in range(1, 6) for name in ("loss", "return, all")]
    store.report(claim, Report(5, values), LONG)
    path = f"/api/training/meta-tasks/{claim.id}/metrics"

    def numbers(**query: object) -> list[int]:
        return [entry["number"] for entry in client.get(path, params=query).json()["values"]]

    assert numbers() == list(range(1, 11))
    assert numbers(name="return, all") == [2, 4, 6, 8, 10]
    assert numbers(name="none", since_step=0) == []
    assert numbers(since_step=4) == [7, 8, 9, 10]
    assert numbers(after=8) == [9, 10]
    assert numbers(name="loss", since_step=2, after=3, limit=2) == [5, 7]
    for query in ({"limit": 10_001}, {"limit": 0}, {"after": -1}, {"since_step": "a"}, {"name": "x" * 201}):
        answer = client.get(path, params=query)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["query", *query]


@pytest.mark.parametrize(("part", "items"), [("metrics", "values"), ("logs", "lines")])
def test_pages_follow_each_other_without_gap_or_overlap(
    client: TestClient, store: JobStore, part: str, items: str
) -> None:
    claim = running(store)
    told(store, claim, [0.0] * 25, [f"line {number}" for number in range(25)])
    found: list[int] = []
    after: int | None = 0
    while after is not None:
        path = f"/api/training/meta-tasks/{claim.id}/{part}"
        page = client.get(path, params={"after": after, "limit": 10}).json()
        found += [entry["number"] for entry in page[items]]
        after = page["next"]
    assert found == list(range(1, 26))


def test_a_stopped_job_keeps_its_model_and_has_no_results(
    client: TestClient, store: JobStore, folder: Path
) -> None:
    claim = running(store)
    client.post(f"/api/training/meta-tasks/{claim.id}/stop")
    (folder / claim.id / "run" / "latest").mkdir(parents=True)
    store.finish(claim, Outcome(None, model_path=f"{claim.id}/run"))
    path = f"/api/training/meta-tasks/{claim.id}"
    assert client.get(path).json()["state"] == "cancelled"
    assert client.get(f"{path}/results").status_code == 409
    assert client.get(f"{path}/model").status_code == 200


def test_characters_of_all_kinds_come_back_as_they_were_sent(client: TestClient, store: JobStore) -> None:
    name = "Ünïcode \u2028 \x85 \x7f 漢字 🦊 <script>"
    claim = running(store, name=name)
    told(store, claim, [], [name])
    assert client.get(f"/api/training/meta-tasks/{claim.id}").json()["name"] == name
    assert client.get(f"/api/training/meta-tasks/{claim.id}/logs").json()["lines"][0]["text"] == name


def test_a_database_that_does_not_answer_is_503_and_its_address_nobodys_business(
    client: TestClient, store: JobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = completed(store)

    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("the database postgresql://me:***@inside/jobs does not answer: too bad")

    for name in ("get", "page", "create", "move", "delete", "counts"):
        monkeypatch.setattr(store, name, refuse)
    path = f"/api/training/meta-tasks/{job.id}"
    answers = [client.get(f"{path}{part}") for part in PARTS]
    answers += [client.get("/api/training/meta-tasks"), client.get("/healthz"), client.get("/metrics")]
    answers += [client.delete(path), client.post(f"{path}/start")]
    answers += [client.post("/api/training/tasks", json={"name": "a"})]
    for answer in answers:
        assert answer.status_code == 503
        assert answer.json() == {"detail": "the database does not answer; try again"}
        assert answer.headers["Retry-After"] == "1"
    assert "too bad" in caplog.text
