"""Starting, pausing, resuming, stopping, cancelling and deleting: what each state allows, and races."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import Action, State, allowed
from innerloop.service.jobs.store import JobStore, Outcome
from service.api.standing import completed, in_state, now, pending, running

LEADS = {
    (State.PENDING, Action.START): State.QUEUED,
    (State.PENDING, Action.STOP): State.CANCELLED,
    (State.PENDING, Action.CANCEL): State.CANCELLED,
    (State.QUEUED, Action.PAUSE): State.PAUSED,
    (State.QUEUED, Action.STOP): State.CANCELLED,
    (State.QUEUED, Action.CANCEL): State.CANCELLED,
    (State.RUNNING, Action.PAUSE): State.PAUSING,
    (State.RUNNING, Action.STOP): State.CANCELLING,
    (State.RUNNING, Action.CANCEL): State.CANCELLING,
    (State.PAUSING, Action.STOP): State.CANCELLING,
    (State.PAUSING, Action.CANCEL): State.CANCELLING,
    (State.PAUSED, Action.RESUME): State.QUEUED,
    (State.PAUSED, Action.STOP): State.CANCELLED,
    (State.PAUSED, Action.CANCEL): State.CANCELLED,
    (State.FAILED, Action.RESUME): State.QUEUED,
}
"""Where an action takes a job, written down by hand; whatever is not here is refused."""


@pytest.mark.parametrize("state", State)
def test_every_action_in_every_state_does_what_it_should_or_says_what_can_be_asked(
    client: TestClient, store: JobStore, state: State
) -> None:
    for action in Action:
        job = in_state(store, Kind.META, state)
        answer = client.post(f"/api/training/meta-tasks/{job.id}/{action}")
        if (state, action) in LEADS:
            assert answer.status_code == 200
            assert answer.json()["state"] == now(store, job.id).state == LEADS[state, action]
            assert now(store, job.id).keep == (action is Action.STOP)
        else:
            assert answer.status_code == 409
            can = ", ".join(allowed(state)) or "nothing"
            said = f"a job that is {state} cannot {action}; what can be asked of it: {can}"
            assert answer.json() == {"detail": said}
            assert now(store, job.id) == job
        # The next one must not find it waiting.
        store.move(job.id, State.QUEUED, State.CANCELLED)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_every_action(client: TestClient, store: JobStore, kind: Kind) -> None:
    job = pending(store, kind)
    for action, state in (
        ("start", "queued"),
        ("pause", "paused"),
        ("resume", "queued"),
        ("stop", "cancelled"),
    ):
        answer = client.post(f"/api/training/{kind}/{job.id}/{action}")
        assert (answer.status_code, answer.json()["state"]) == (200, state)
    assert client.post(f"/api/training/{kind}/{job.id}/cancel").status_code == 409


def test_of_many_starts_at_once_one_starts_the_job(client: TestClient, store: JobStore) -> None:
    for _ in range(5):
        path = f"/api/training/meta-tasks/{pending(store).id}/start"
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(client.post, [path] * 8))
        assert sorted(answer.status_code for answer in answers) == [200] + 7 * [409]


def test_of_a_pause_and_a_cancellation_at_once_none_is_lost(client: TestClient, store: JobStore) -> None:
    for _ in range(5):
        path = f"/api/training/meta-tasks/{running(store).id}"
        with ThreadPoolExecutor(2) as threads:
            pause, cancel = threads.map(client.post, (f"{path}/pause", f"{path}/cancel"))
        # A cancellation is possible before and after a pause; a pause only before.
        assert cancel.status_code == 200
        assert pause.status_code in (200, 409)
        assert client.get(path).json()["state"] == "cancelling"


@pytest.mark.parametrize(("action", "kept"), [(Action.STOP, True), (Action.CANCEL, False)])
def test_what_a_paused_job_has_learned_is_kept_by_stop_and_thrown_away_by_cancel(
    client: TestClient, store: JobStore, folder: Path, action: Action, kept: bool
) -> None:
    job = running(store, Kind.META)
    assert store.move(job.id, State.RUNNING, State.PAUSING) is not None
    store.finish(job, Outcome(None, model_path=f"{job.id}/run"))
    (folder / job.id / "run" / "latest").mkdir(parents=True)
    (folder / job.id / "log.txt").write_text("so far\n")
    ended = client.post(f"/api/training/meta-tasks/{job.id}/{action}").json()
    assert (ended["state"], ended["model_path"]) == ("cancelled", f"{job.id}/run" if kept else None)
    assert (folder / job.id / "run" / "latest").is_dir() == kept
    assert (folder / job.id / "log.txt").is_file()


@pytest.mark.parametrize("state", State)
def test_a_job_is_deleted_with_its_folder_unless_a_worker_has_it(
    client: TestClient, store: JobStore, folder: Path, state: State
) -> None:
    job = in_state(store, Kind.META, state)
    (folder / job.id / "run").mkdir(parents=True)
    (folder / "another").mkdir()
    answer = client.delete(f"/api/training/meta-tasks/{job.id}")
    if state.held:
        assert answer.status_code == 409
        assert answer.json()["detail"] == f"a job that is {state} cannot be deleted; cancel it first"
        assert (folder / job.id).is_dir()
        assert store.get(job.id) == job
    else:
        assert (answer.status_code, answer.content) == (204, b"")
        assert not (folder / job.id).exists()
        assert store.get(job.id) is None
        assert client.delete(f"/api/training/meta-tasks/{job.id}").status_code == 404
    assert (folder / "another").is_dir()


def test_of_many_deletions_at_once_one_deletes(client: TestClient, store: JobStore) -> None:
    path = f"/api/training/meta-tasks/{completed(store).id}"
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(client.delete, [path] * 8))
    assert sorted(answer.status_code for answer in answers) == [204] + 7 * [404]


def test_a_folder_that_cannot_be_removed_is_told_of_and_the_job_is_gone_all_the_same(
    client: TestClient,
    store: JobStore,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    job = completed(store)
    (folder / job.id).mkdir()
    assert client.delete(f"/api/training/meta-tasks/{job.id}").status_code == 204
    assert store.get(job.id) is None
    assert job.id in caplog.text
    assert "Permission denied" in caplog.text


@pytest.mark.parametrize("action", Action)
def test_what_is_asked_of_a_job_of_another_kind_or_of_none_is_not_found(
    client: TestClient, store: JobStore, action: Action
) -> None:
    job = pending(store, Kind.META)
    for path in (f"tasks/{job.id}", f"meta-tasks/{'0' * 24}"):
        assert client.post(f"/api/training/{path}/{action}").status_code == 404
    assert client.post(f"/api/training/meta-tasks/{job.id[:-1]}/{action}").status_code == 422
    assert now(store, job.id) == job
