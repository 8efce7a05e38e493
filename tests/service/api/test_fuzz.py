"""The whole API against what schemathesis makes of its own documentation: nothing that is sent breaks it.

Besides ids that are nobody's, it sends those of jobs in every state.
"""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import strategies
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation, BaseSchema

from innerloop.service.api.app import create_app
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore
from innerloop.service.stores.opening import open_store
from service.api.standing import in_state

Operation = APIOperation[Any, Any, Any, Any]

TOKEN = "0123456789abcdef-token"

# A schema cannot say all that is asked of a body: a job to start from must be there, of two fields one must
# be given, a range must rise.
REFUSABLE = {"positive_data_acceptance": {"expected-statuses": ["2xx", 401, 403, 404, 409, 413, 422]}}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, JobStore]]:
    """A service with a token and jobs of every kind in every state."""
    home = tmp_path_factory.mktemp("fuzzed")
    store = open_store(f"sqlite:///{home}/jobs.sqlite")
    # Queued ones last: the others must not be taken for one that waits.
    for state in sorted(State, key=lambda state: state is State.QUEUED):
        for kind in Kind:
            for _ in range(2):
                in_state(store, kind, state)
    yield create_app(store, home / "jobs", ServiceSettings(token=TOKEN)), store
    store.close()


@pytest.fixture(scope="module")
def schema(fuzzed: tuple[FastAPI, JobStore]) -> BaseSchema:
    """What the service says of itself."""
    config = SchemathesisConfig.from_dict({"checks": REFUSABLE})
    return schemathesis.openapi.from_asgi("/openapi.json", fuzzed[0], config=config)


def operations(schema: BaseSchema, tag: str) -> list[Operation]:
    """The operations of a kind; deletion comes last."""
    found = [result.ok() for result in schema.get_all_operations()]
    mine = [operation for operation in found if operation.path.startswith(tag)]
    return sorted(mine, key=lambda operation: operation.method == "delete")


def fuzz(operation: Operation, store: JobStore, examples: int) -> int:
    """Sends good and bad requests to an operation; how many of them met a job."""
    met = 0

    @hypothesis.settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(data=strategies.data())
    def send(data: strategies.DataObject) -> None:
        nonlocal met
        mode = data.draw(strategies.sampled_from(GenerationMode))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        jobs = store.page(None, limit=200).jobs
        if mode is GenerationMode.POSITIVE and "identifier" in case.path_parameters:
            mine = [job for job in jobs if f"/{job.kind}/" in operation.path]
            if operation.path.endswith("/events"):
                mine = [job for job in mine if job.state.over]  # only these streams end
            case.path_parameters["identifier"] = mine[data.draw(strategies.integers(0, 99)) % len(mine)].id
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code < 500
        met += answer.status_code in (200, 201, 204, 409)

    send()
    return met


@pytest.mark.parametrize("kind", Kind)
def test_whatever_is_sent_is_answered_as_the_documentation_says(
    fuzzed: tuple[FastAPI, JobStore], schema: BaseSchema, kind: Kind
) -> None:
    found = operations(schema, f"/api/training/{kind}")
    assert len(found) == 15
    met = {f"{operation.method} {operation.path}": fuzz(operation, fuzzed[1], 8) for operation in found}
    assert sum(count > 0 for count in met.values()) >= 12, met


def test_the_services_own_pages_are_as_documented(
    fuzzed: tuple[FastAPI, JobStore], schema: BaseSchema
) -> None:
    for path in ("/healthz", "/metrics"):
        (operation,) = operations(schema, path)
        assert fuzz(operation, fuzzed[1], 5) > 0
