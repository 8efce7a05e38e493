"""Any sequence of calls does to a store what it does to a model of one that is kept in a few dictionaries."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from innerloop.service.jobs.job import Kind, LogLine, MetricValue
from innerloop.service.jobs.states import Action, State, asked
from innerloop.service.jobs.store import (
    Claim,
    IdempotencyKey,
    JobStore,
    KeyReused,
    LeaseLost,
    Outcome,
    Report,
)
from innerloop.service.stores.opening import open_store
from service.servers import empty_postgres
from service.stores.made_up import LONG, OVER, made_up

MOST_LOSSES = 2
HELD = (State.RUNNING, State.PAUSING, State.CANCELLING)
OVER_STATES = (State.COMPLETED, State.FAILED, State.CANCELLED)
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")


@dataclass
class ModelJob:
    kind: Kind
    state: State = State.PENDING
    keep: bool = False
    token: int = 0
    waits_since: int = 0
    lease_over: bool = False
    losses: int = 0
    step: int = 0
    values: dict[tuple[int, str], float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    failed: bool = False
    started: bool = False


class StoreMachine(RuleBasedStateMachine):
    """Rules that call the store and the model alike."""

    fresh: ClassVar[Callable[[], JobStore]]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).fresh()
        self.model: dict[str, ModelJob] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.claims: list[Claim] = []
        self.turns = itertools.count(1)

    def teardown(self) -> None:
        for name in self.model:
            self._holds_what_was_told(name)
        self.store.close()

    def _holds_what_was_told(self, name: str) -> None:
        told = [((value.step, value.name), value.value) for value in self.store.metrics(name)]
        assert told == list(self.model[name].values.items())
        assert [line.text for line in self.store.lines(name)] == self.model[name].lines

    def turn(self) -> int:
        time.sleep(0.002)  # so that each has its own time, in MongoDB's milliseconds too
        return next(self.turns)

    @initialize(seconds=st.sampled_from([LONG, OVER]))
    def begin(self, seconds: float) -> None:
        # Most of what can go wrong needs a job that somebody holds.
        self.create(Kind.META, start=True)
        self.claim(seconds)

    @rule(kind=st.sampled_from([Kind.META, Kind.LLM]), start=st.booleans())
    def create(self, kind: Kind, start: bool) -> None:
        self.turn()
        job = self.store.create(made_up(kind))
        self.model[job.id] = ModelJob(kind)
        if start:
            self._move(job.id, State.QUEUED)

    @rule(key=st.sampled_from(["k", "l"]), print_=st.sampled_from(["p", "q"]))
    def create_once(self, key: str, print_: str) -> None:
        self.turn()
        known = self.keys.get(key)
        if known is not None and known[1] != print_:
            with pytest.raises(KeyReused):
                self.store.create(made_up(), IdempotencyKey(key, print_))
            return
        job = self.store.create(made_up(), IdempotencyKey(key, print_))
        if known is None:
            self.keys[key] = (job.id, print_)
            self.model[job.id] = ModelJob(Kind.META)
        else:
            assert job.id == known[0]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), action=st.sampled_from(list(Action)))
    def act(self, data: st.DataObject, action: Action) -> None:
        name = data.draw(st.sampled_from(list(self.model)))
        to = asked(action, self.model[name].state)
        if to is not None:
            self._move(name, to, keep=action is Action.STOP)

    def _move(self, name: str, to: State, keep: bool = False) -> None:
        job = self.model[name]
        wrong = State.PAUSED if job.state is not State.PAUSED else State.RUNNING
        assert self.store.move(name, wrong, to) is None
        moved = self.store.move(name, job.state, to, keep)
        assert moved is not None
        job.state, job.keep = to, keep
        if to is State.QUEUED:
            job.waits_since, job.losses, job.failed = self.turn(), 0, False

    @rule(seconds=st.sampled_from([LONG, OVER]))
    def claim(self, seconds: float) -> None:
        if not any(job.state is State.QUEUED for job in self.model.values()):
            self.create(Kind.LLM, start=True)
        expected = self._expected_claim(seconds)
        claim = self.store.claim("w", seconds, MOST_LOSSES)
        assert (claim.id if claim else None) == expected
        if claim is not None:
            assert claim.token == self.model[claim.id].token
            self.claims.append(claim)

    def _expected_claim(self, seconds: float) -> str | None:
        waiting = [
            name
            for name, job in self.model.items()
            if job.state is State.QUEUED or (job.state in HELD and job.lease_over)
        ]
        for name in sorted(waiting, key=lambda name: self.model[name].waits_since):
            job = self.model[name]
            if job.state is State.PAUSING:
                job.state = State.PAUSED
            elif job.state is State.CANCELLING:
                job.state = State.CANCELLED
            else:
                job.losses += job.state is State.RUNNING
                if job.losses > MOST_LOSSES:
                    job.state, job.failed = State.FAILED, True
                    continue
                job.state, job.started, job.token = State.RUNNING, True, job.token + 1
                job.waits_since, job.lease_over = self.turn(), seconds == OVER
                return name
        return None

    def _holds(self, claim: Claim) -> bool:
        job = self.model.get(claim.id)
        return job is not None and job.state in HELD and job.token == claim.token

    def _draw_claim(self, data: st.DataObject) -> Claim:
        """A claim, most often one that still holds: only these can show what a report does."""
        held = [claim for claim in self.claims if self._holds(claim)]
        return data.draw(st.sampled_from(4 * held + self.claims[-2:]))

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        step=st.none() | st.integers(0, 6),
        told=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["a", "b"]), st.floats(allow_nan=False))),
        lines=st.lists(st.text(LETTERS, max_size=5), max_size=3),
        back=st.integers(0, 2),
        seconds=st.sampled_from([LONG, OVER]),
    )
    def report(
        self,
        data: st.DataObject,
        step: int | None,
        told: list[tuple[int, str, float]],
        lines: list[str],
        back: int,
        seconds: float,
    ) -> None:
        claim = self._draw_claim(data)
        job = self.model.get(claim.id) or ModelJob(Kind.META)
        first = max(1, len(job.lines) + 1 - back)
        numbered = [LogLine(text, number) for number, text in enumerate(lines, first)]
        report = Report(step, [MetricValue(*value) for value in told], numbered)
        if not self._holds(claim):
            with pytest.raises(LeaseLost):
                self.store.report(claim, report, seconds)
            return
        self.store.report(claim, report, seconds)
        for at, name, value in told:
            job.values.setdefault((at, name), value)
        job.lines += [line.text for line in numbered if line.number > len(job.lines)]
        if step is not None and step > job.step:
            job.step, job.losses = step, 0
        job.waits_since, job.lease_over = self.turn(), seconds == OVER
        self._holds_what_was_told(claim.id)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), end=st.sampled_from([State.COMPLETED, State.FAILED, None]))
    def finish(self, data: st.DataObject, end: State | None) -> None:
        claim = self._draw_claim(data)
        outcome = Outcome(end, "why" if end is State.FAILED else None)
        if not self._holds(claim):
            with pytest.raises(LeaseLost):
                self.store.finish(claim, outcome)
            return
        job = self.model[claim.id]
        self.store.finish(claim, outcome)
        given_back = {State.RUNNING: State.QUEUED, State.PAUSING: State.PAUSED}
        if job.state is State.CANCELLING:
            job.state = State.CANCELLED
        else:
            job.state = end or given_back[job.state]
        job.failed, job.losses, job.waits_since = job.state is State.FAILED, 0, self.turn()

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.model)))
        free = self.model[name].state not in HELD
        assert self.store.delete(name) == free
        if free:
            del self.model[name]
            self.keys = {key: made for key, made in self.keys.items() if made[0] != name}

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        page = self.store.page(None, limit=1000)
        assert page.total == len(self.model)
        assert [job.id for job in page.jobs] == list(self.model)[::-1]
        for job in page.jobs:
            model = self.model[job.id]
            assert (job.kind, job.state, job.keep, job.losses) == (
                model.kind,
                model.state,
                model.keep,
                model.losses,
            )
            assert (job.current_episode, job.metric_count, job.log_count) == (
                model.step,
                len(model.values),
                len(model.lines),
            )
            assert (job.lease.token if job.lease else 0) == model.token
            assert (job.error_message is not None) == model.failed
            assert (job.started_at is not None) == model.started
            assert (job.finished_at is not None) == (model.state in OVER_STATES)
            newest = {name: value for (_, name), value in model.values.items()}
            assert job.metrics == newest


def check(fresh: Callable[[], JobStore], examples: int) -> None:
    class Bound(StoreMachine):
        pass

    Bound.fresh = staticmethod(fresh)  # type: ignore[assignment]
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_sqlite_does_as_the_model(tmp_path: Path) -> None:
    files = itertools.count()
    check(lambda: open_store(f"sqlite:///{tmp_path}/{next(files)}.db"), 25)


def test_postgres_does_as_the_model(postgres_url: str) -> None:
    def fresh() -> JobStore:
        empty_postgres(postgres_url)
        return open_store(postgres_url)

    check(fresh, 6)


def test_mongo_does_as_the_model(mongo_url: str) -> None:
    databases = itertools.count()
    check(lambda: open_store(f"{mongo_url}-{next(databases)}"), 6)
