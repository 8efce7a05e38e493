"""The client for Python against a real server: its answers, its errors, and a service that comes and goes."""

import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import innerloop
from innerloop.core.errors import InputError
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.client import Client, Event, ServiceError
from innerloop.service.connection import BrokenOff
from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import Claim, JobStore, Outcome, StoreUnavailable
from innerloop.service.kinds import KINDS
from innerloop.service.serving import listening
from innerloop.service.stores.opening import open_store
from service.api.live import serving
from service.api.standing import LONG, RESULTS, a_model, completed, now, pending, running, told

META = dict(KINDS[Kind.META].example)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service keeps what it has."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def kept_store(home: Path) -> Iterator[JobStore]:
    store = open_store(f"sqlite:///{home}/jobs.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="module")
def address(home: Path, kept_store: JobStore) -> Iterator[str]:
    """Of the service, which is started once: that is most of what a test would take."""
    with serving(kept_store, home / "jobs") as address:
        yield address


@pytest.fixture
def store(kept_store: JobStore, home: Path) -> JobStore:
    """The store, empty."""
    with contextlib.closing(sqlite3.connect(home / "jobs.sqlite", timeout=30)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM jobs")
    return kept_store


@pytest.fixture
def folder(home: Path) -> Path:
    """Of the jobs' own folders."""
    return home / "jobs"


@pytest.fixture
def client(store: JobStore, address: str) -> Iterator[Client]:
    """A client of the service, which has no jobs."""
    with Client(address) as client:
        yield client


@pytest.fixture
def port() -> int:
    """A port that nobody listens at."""
    with listening(ServiceSettings(port=0)) as listener:
        number: int = listener.getsockname()[1]
        return number


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's environment says."""
    monkeypatch.delenv("INNERLOOP_TOKEN", raising=False)


@contextlib.contextmanager
def later(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Does something meanwhile."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.join(60)


def claimed(store: JobStore) -> Claim:
    claim = store.claim("a worker", LONG, 3)
    assert claim is not None
    return claim


def finish(store: JobStore) -> None:
    """Does what a worker would do with the job that waits."""
    claim = claimed(store)
    told(store, claim, [0.5, 0.25], ["begins", "ends"])
    store.finish(claim, Outcome(State.COMPLETED, results=RESULTS[Kind.META]))


def test_the_package_gives_the_client_when_it_is_asked_for() -> None:
    assert innerloop.Client is Client
    loads = "import sys, innerloop; print('httpx' in sys.modules or 'innerloop.service' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_a_job_is_submitted_waited_for_and_read(client: Client, store: JobStore) -> None:
    job = client.submit("meta-tasks", **META)
    assert job.state is State.QUEUED
    seen: list[float] = []
    with later(0.5, lambda: finish(store)):
        results = job.wait(60, lambda progress: seen.append(progress["progress"]))
    assert results == job.results() == RESULTS[Kind.META]
    assert seen[0] == 0
    assert seen[-1] == 100
    assert [entry["value"] for entry in job.metrics()] == [0.5, 0.25]
    assert [entry["value"] for entry in job.metrics("loss", since_step=2)] == [0.25]
    assert job.metrics("none") == []
    assert job.logs() == ["begins", "ends"]
    assert job.details()["name"] == META["name"]
    assert [entry["id"] for entry in client.jobs("meta-tasks", "completed", "failed")] == [job.id]
    assert client.jobs(Kind.META, State.PENDING) == []
    assert client.job("meta-tasks", job.id).details() == job.details()
    job.delete()
    assert store.get(job.id) is None


def test_values_and_lines_come_whole_however_many_pages_they_fill(client: Client, store: JobStore) -> None:
    claim = running(store)
    told(store, claim, [0.0] * 25_000, [str(number) for number in range(2500)])
    job = client.job(Kind.META, claim.id)
    assert [entry["number"] for entry in job.metrics()] == list(range(1, 25_001))
    assert job.logs() == [str(number) for number in range(2500)]


def test_every_action_is_done(client: Client, store: JobStore) -> None:
    job = client.submit("meta-tasks", start=False, **META)
    assert job.state is State.PENDING
    assert job.start().pause().state is State.PAUSED
    assert job.resume().state is State.QUEUED
    assert job.cancel().state is State.CANCELLED
    other = client.job(Kind.META, running(store).id)
    assert other.stop().state is State.CANCELLING
    assert now(store, other.id).keep


def test_a_refusal_tells_the_status_and_the_fields(client: Client, store: JobStore) -> None:
    with pytest.raises(ServiceError, match=r"422: inner_lr: .*; nmae: Extra inputs") as refusal:
        client.submit("meta-tasks", **META, inner_lr=-1, nmae=1)
    assert refusal.value.status == 422
    with pytest.raises(ServiceError, match="409: a job that is completed cannot start"):
        client.job(Kind.META, completed(store).id).start()
    with pytest.raises(ServiceError, match="404: there is no job"):
        client.job(Kind.TASKS, "0" * 24).details()
    with pytest.raises(ServiceError, match="404"):
        list(client.job(Kind.TASKS, "0" * 24).events())
    with pytest.raises(ServiceError, match="409: the job is pending and has no trained model"):
        client.job(Kind.META, pending(store).id).download("model.zip")
    with pytest.raises(ValueError, match="no-tasks"):
        client.submit("no-tasks")
    assert store.page(Kind.META).total == 2


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (Outcome(State.FAILED, error_message="the disk is full"), "failed: the disk is full"),
        (None, "cancelled: no results"),
    ],
)
def test_waiting_for_a_job_that_does_not_complete_tells_why(
    client: Client, store: JobStore, outcome: Outcome | None, message: str
) -> None:
    job = client.submit("meta-tasks", **META)
    if outcome is None:
        job.cancel()
    else:
        store.finish(claimed(store), outcome)
    with pytest.raises(ServiceError, match=f"job {job.id} {message}"):
        job.wait(30)


def test_waiting_ends_in_time_and_the_job_goes_on(client: Client) -> None:
    job = client.submit("meta-tasks", **META)
    with pytest.raises(TimeoutError, match=f"job {job.id} is still queued after 0.3 s"):
        job.wait(0.3)
    assert job.state is State.QUEUED


def test_events_are_told_until_the_end(client: Client, store: JobStore) -> None:
    job = client.job(Kind.META, completed(store).id)
    events = list(job.events())
    assert [event.name for event in events] == ["metrics", "log", "job", "end"]
    assert events[2].data["id"] == job.id
    assert [event.name for event in job.events(events[1].id)] == ["job", "end"]


def test_a_model_is_saved_whole_or_not_at_all(
    client: Client, store: JobStore, folder: Path, tmp_path: Path
) -> None:
    claim = running(store, Kind.ADAPTATION)
    model = a_model(folder, claim, {"adapter": b"x" * 3_000_000})
    store.finish(claim, Outcome(State.COMPLETED, results=RESULTS[Kind.ADAPTATION], model_path=model))
    job = client.job(Kind.ADAPTATION, claim.id)
    target = job.download(tmp_path / "adapter.zip")
    with zipfile.ZipFile(target) as archive:
        assert archive.read("adapter") == b"x" * 3_000_000
    with pytest.raises(InputError, match="cannot write"):
        job.download(tmp_path / "nowhere" / "adapter.zip")
    (folder / claim.id / "model" / "adapter").unlink()
    (folder / claim.id / "model").rmdir()
    with pytest.raises(ServiceError, match="is not there any more"):
        job.download(tmp_path / "second.zip")
    assert [path.name for path in tmp_path.iterdir() if "zip" in path.name] == ["adapter.zip"]


def test_a_download_that_breaks_off_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def break_off() -> Iterator[bytes]:
        yield b"half"
        raise httpx.ReadError("gone")

    class Pieces(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            return break_off()

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Pieces()))
    with pytest.raises(InputError, match="did not send the whole of it"):
        Client(transport=transport).job(Kind.META, "0" * 24).download(tmp_path / "model.zip")
    assert list(tmp_path.iterdir()) == []


def test_the_token_is_carried_and_taken_from_the_environment(
    store: JobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = "0123456789abcdef-token"
    with serving(store, folder, token=token) as address:
        with pytest.raises(ServiceError, match="401: give the service's token"):
            Client(address).jobs("tasks")
        with pytest.raises(ServiceError, match="401"):
            Client(address, "wrong").jobs("tasks")
        assert Client(address, token).jobs("tasks") == []
        monkeypatch.setenv("INNERLOOP_TOKEN", token)
        assert Client(address).jobs("tasks") == []


@pytest.mark.parametrize(("url", "token"), [("http://localhost:port", "t"), ("http://localhost", "tökén")])
def test_what_no_request_can_be_made_of_is_refused(url: str, token: str) -> None:
    with pytest.raises(InputError, match="no service is reached by"):
        Client(url, token)


def test_a_service_that_is_down_for_a_second_is_waited_for(store: JobStore, folder: Path, port: int) -> None:
    service = serving(store, folder, port)
    client = Client(f"http://127.0.0.1:{port}")
    with later(1, service.__enter__):
        job = client.submit("meta-tasks", **META)
    try:
        assert job.state is State.QUEUED
        assert store.page(None).total == 1
    finally:
        service.__exit__(None, None, None)


def test_a_service_that_stays_down_is_one_line(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    client = Client(f"http://127.0.0.1:{port}")
    with pytest.raises(InputError, match=r"is not reached .*; is 'innerloop serve' running\?"):
        client.jobs("tasks")
    with pytest.raises(InputError, match="is not reached"):
        list(client.job("tasks", "0" * 24).events())


class Losing(httpx.BaseTransport):
    """A network that does what is asked and loses the answers.

    Args:
        times: so many of them, of requests that are no questions.
    """

    def __init__(self, times: int = 1) -> None:
        self._network, self._times = httpx.HTTPTransport(), times

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._network.handle_request(request)
        if request.method != "GET" and self._times > 0:
            self._times -= 1
            answer.read()
            answer.close()
            raise httpx.ReadError("the connection is gone")
        return answer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits between two attempts."""
    monkeypatch.setattr(time, "sleep", lambda _: None)


def test_a_creation_whose_answer_is_lost_happens_once(address: str, store: JobStore) -> None:
    job = Client(address, transport=Losing(3)).submit("meta-tasks", start=False, **META)
    assert store.page(None).total == 1
    assert job.state is State.PENDING


def test_an_action_whose_answer_is_lost_is_seen_by_the_jobs_state(address: str, store: JobStore) -> None:
    job = pending(store)
    for action, state in (("start", State.QUEUED), ("pause", State.PAUSED), ("resume", State.QUEUED)):
        remote = Client(address, transport=Losing()).job(Kind.META, job.id)
        getattr(remote, action)()
        assert now(store, job.id).state is state
    claimed(store)
    Client(address, transport=Losing()).job(Kind.META, job.id).stop()
    assert now(store, job.id).state is State.CANCELLING
    other = completed(store)
    with pytest.raises(ServiceError, match="409"):
        Client(address, transport=Losing()).job(Kind.META, other.id).pause()
    Client(address, transport=Losing()).job(Kind.META, other.id).delete()
    assert store.get(other.id) is None


def test_an_action_that_cannot_be_sent_is_told(address: str, store: JobStore) -> None:
    remote = Client(address, transport=Losing(9)).job(Kind.META, completed(store).id)
    with pytest.raises(BrokenOff, match="broke off before it answered"):
        remote.pause()


@pytest.mark.usefixtures("quick")
def test_a_database_that_is_away_for_a_while_is_waited_for(
    address: str, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Client(address).job(Kind.META, completed(store).id)
    real, refusals = store.get, [StoreUnavailable("away")] * 3

    def get(identifier: str) -> object:
        if refusals:
            raise refusals.pop()
        return real(identifier)

    monkeypatch.setattr(store, "get", get)
    assert job.state is State.COMPLETED
    refusals += [StoreUnavailable("away")] * 3
    assert [event.name for event in job.events()][-1] == "end"


def test_events_go_on_when_the_service_was_started_again_in_the_middle(
    store: JobStore, folder: Path, port: int
) -> None:
    claim = running(store)
    told(store, claim, [0.5, 0.25], ["first"])
    seen: list[Event] = []
    enough = threading.Event()

    def read() -> None:
        for event in Client(f"http://127.0.0.1:{port}").job(Kind.META, claim.id).events():
            seen.append(event)
            enough.set()

    reading = threading.Thread(target=read)
    with serving(store, folder, port):
        reading.start()
        assert enough.wait(30)
    told(store, claim, [0.125], ["second"])
    with serving(store, folder, port):
        told(store, claim, [0.0625], ["third"])
        store.finish(claim, Outcome(State.COMPLETED))
        reading.join(60)
    assert not reading.is_alive()
    assert [entry["number"] for event in seen if event.name == "metrics" for entry in event.data] == [
        1,
        2,
        3,
        4,
    ]
    lines = [entry["text"] for event in seen if event.name == "log" for entry in event.data]
    assert lines == ["first", "second", "third"]
    assert [event.name for event in seen][-2:] == ["job", "end"]


def test_characters_of_all_kinds_pass_through_a_stream(client: Client, store: JobStore) -> None:
    name = "a\u2028b\x85c\x0cd 漢字 🦊"
    claim = running(store, name=name)
    told(store, claim, [], [name])
    store.finish(claim, Outcome(State.FAILED, error_message=name))
    events = {event.name: event.data for event in client.job(Kind.META, claim.id).events()}
    assert events["log"][0]["text"] == name
    assert events["job"]["error_message"] == name
