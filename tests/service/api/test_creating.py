"""Creating jobs: what is taken, what is refused and how, and that what is sent twice happens once."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore
from innerloop.service.kinds import KINDS
from service.api.standing import completed, now, pending

SECRET = "s3cret-that-must-not-come-back"


def body(store: JobStore, kind: Kind, **changes: object) -> dict[str, Any]:
    """The documentation's example, with the jobs it starts from."""
    example = dict(KINDS[kind].example)
    for field in KINDS[kind].sources(KINDS[kind].request.model_validate(example)):
        example[field] = completed(store, Kind.TASKS).id
    return {**example, **changes}


@pytest.mark.parametrize("kind", Kind)
def test_the_documented_example_of_every_kind_makes_a_job_that_is_found_where_the_answer_says(
    client: TestClient, store: JobStore, kind: Kind
) -> None:
    sent = body(store, kind, description="in words")
    answer = client.post(f"/api/training/{kind}", json=sent)
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"/api/training/{kind}/{made['id']}"
    assert (made["state"], made["kind"], made["progress"]) == ("pending", kind, 0)
    assert {field: made[field] for field in sent if field in ("name", "description", "seed", "steps")}
    assert made["actions"] == ["start", "stop", "cancel"]
    assert client.get(answer.headers["Location"]).json() == made
    request = KINDS[kind].request.model_validate(sent)
    assert now(store, made["id"]).settings == request.model_dump(mode="json")
    assert made.keys() > KINDS[kind].request.model_fields.keys()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, ["body", "name"]),
        ({"name": "x" * 201}, ["body", "name"]),
        ({"name": "a\0b"}, ["body", "name"]),
        ({"name": 7}, ["body", "name"]),
        ({"nmae": SECRET}, ["body", "nmae"]),
        ({"inner_lr": -1}, ["body", "inner_lr"]),
        ({"inner_lr": SECRET}, ["body", "inner_lr"]),
        ({"inner_lr": "0.1"}, ["body", "inner_lr"]),
        ({"total_episodes": True}, ["body", "total_episodes"]),
        ({"total_episodes": 10**30}, ["body", "total_episodes"]),
        ({"meta_algorithm": SECRET}, ["body", "meta_algorithm"]),
        ({"evaluation": {"clusters": 0}}, ["body", "evaluation", "clusters"]),
        ({"task_distribution": {"kubernetes_scaling": {"nodes": [1, SECRET]}}}, None),
        ({"source_task_id": "../../etc/passwd"}, ["body", "source_task_id"]),
        ({"source_task_id": "0" * 24}, ["body", "source_task_id"]),
    ],
)
def test_a_bad_body_is_refused_with_the_field_and_without_what_was_sent(
    client: TestClient, store: JobStore, changes: dict[str, object], field: list[str] | None
) -> None:
    answer = client.post("/api/training/meta-tasks", json=body(store, Kind.META, **changes))
    assert answer.status_code == 422
    places = [entry["loc"] for entry in answer.json()["detail"]]
    assert field is None or field in places
    assert all(place[0] == "body" for place in places)
    assert SECRET not in answer.text
    assert "passwd" not in answer.text
    assert store.page(Kind.META).total == 0


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"name"', 422),
        (b'{"name": "a", "inner_lr": NaN}', 422),
        (b'{"name": "a", "inner_lr": Infinity}', 422),
        (b'{"name": "\\ud800"}', 422),
        (b'{"\\ud800": 1}', 422),
        (b'{"name": "a"', 422),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"seed": ' + b"1" * 6000 + b"}", 400),
        (b'{"name": "a", "%s": 1}' % (b"x" * 100_000), 422),
    ],
    ids=lambda raw: repr(raw)[:24],
)
def test_whatever_a_body_holds_the_answer_is_short_and_no_fault_of_the_service(
    client: TestClient, raw: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/training/meta-tasks", content=raw, headers=headers)
    assert answer.status_code == status
    assert len(answer.content) < 2000


def test_as_many_wrong_fields_as_a_client_likes_are_answered_with_a_hundred(client: TestClient) -> None:
    answer = client.post("/api/training/meta-tasks", json={f"field{number}": 1 for number in range(20_000)})
    assert len(answer.json()["detail"]) == 100


def test_a_body_of_another_type_than_json_is_refused(client: TestClient) -> None:
    raw = json.dumps({"name": "from a form of another page"})
    answer = client.post("/api/training/tasks", content=raw, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422


@pytest.mark.parametrize("name", ["../model", "/etc", "a/b", "..", ".hidden", "a\\..\\b", "%2e%2e", "-rf"])
@pytest.mark.parametrize(
    ("kind", "field"), [(Kind.LLM, "model"), (Kind.LLM, "data"), (Kind.ADAPTATION, "model")]
)
def test_no_name_of_a_model_or_of_data_is_a_path(
    client: TestClient, kind: Kind, field: str, name: str
) -> None:
    sent = {**KINDS[kind].example, field: name}
    answer = client.post(f"/api/training/{kind}", json=sent)
    assert answer.status_code == 422
    assert ["body", field] in [entry["loc"] for entry in answer.json()["detail"]]


def test_no_name_of_a_task_is_a_path(client: TestClient) -> None:
    rows = [{"prompt": "a", "response": "b"}]
    tasks = {"../../outside": {"support": rows, "query": rows}}
    answer = client.post("/api/training/llm-tasks", json={"name": "a", "tasks": tasks})
    assert answer.status_code == 422


def test_a_job_to_start_from_must_be_of_a_kind_that_can_be_started_from(
    client: TestClient, store: JobStore
) -> None:
    other = pending(store, Kind.LLM)
    sent = body(store, Kind.TRANSFER, source_task_id=other.id)
    answer = client.post("/api/training/transfer-tasks", json=sent)
    assert answer.status_code == 422
    (entry,) = answer.json()["detail"]
    assert entry["loc"] == ["body", "source_task_id"]
    assert "tasks or transfer-tasks or meta-tasks" in entry["msg"]


def test_the_same_key_with_the_same_body_gives_the_same_job(client: TestClient, store: JobStore) -> None:
    sent, key = body(store, Kind.META), {"Idempotency-Key": "one"}
    first = client.post("/api/training/meta-tasks", json=sent, headers=key)
    client.post(f"{first.headers['Location']}/start")
    second = client.post("/api/training/meta-tasks", json=sent, headers=key)
    assert second.status_code == 201
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["state"] == "queued"
    assert second.headers["Location"] == first.headers["Location"]
    assert store.page(Kind.META).total == 1


def test_a_key_that_comes_many_times_at_once_makes_one_job(client: TestClient, store: JobStore) -> None:
    sent = body(store, Kind.META)

    def send(_: int) -> tuple[int, str]:
        answer = client.post("/api/training/meta-tasks", json=sent, headers={"Idempotency-Key": "one"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(8) as threads:
        answers = set(threads.map(send, range(16)))
    assert len(answers) == 1
    assert answers.pop()[0] == 201
    assert store.page(Kind.META).total == 1


@pytest.mark.parametrize(("kind", "changes"), [(Kind.META, {"seed": 2}), (Kind.TASKS, {})])
def test_a_key_that_comes_again_with_another_request_is_refused(
    client: TestClient, store: JobStore, kind: Kind, changes: dict[str, object]
) -> None:
    key = {"Idempotency-Key": "one"}
    client.post("/api/training/meta-tasks", json=body(store, Kind.META), headers=key)
    answer = client.post(f"/api/training/{kind}", json=body(store, kind, **changes), headers=key)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]
    assert store.page(None).total == 1


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_that_is_none_is_refused(client: TestClient, store: JobStore, key: str) -> None:
    answer = client.post(
        "/api/training/meta-tasks", json=body(store, Kind.META), headers={"Idempotency-Key": key}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]


def test_without_a_key_every_request_makes_a_job(client: TestClient, store: JobStore) -> None:
    for _ in range(2):
        client.post("/api/training/meta-tasks", json=body(store, Kind.META))
    assert store.page(Kind.META, [State.PENDING]).total == 2
