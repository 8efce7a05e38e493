"""The states of a job and the ways between them.

A person's actions and a worker's findings both move a job; every move is from a state it was seen in to
another, so of two that are made at once one is refused. ``running``, ``pausing`` and ``cancelling`` belong to
a worker that holds the job's lease; the others to nobody.
"""

from enum import StrEnum


class State(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    COMPLETED = "completed"
    FAILED = "failed"

    @property
    def held(self) -> bool:
        """Whether a worker has the job."""
        return self in HELD

    @property
    def over(self) -> bool:
        """Whether nothing will come of it any more unless somebody resumes it."""
        return self in (State.CANCELLED, State.COMPLETED, State.FAILED)


HELD = (State.RUNNING, State.PAUSING, State.CANCELLING)


class Action(StrEnum):
    """What a person may ask of a job."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    CANCEL = "cancel"


_END = {
    State.PENDING: State.CANCELLED,
    State.QUEUED: State.CANCELLED,
    State.PAUSED: State.CANCELLED,
    State.RUNNING: State.CANCELLING,
    State.PAUSING: State.CANCELLING,
}
_ASKED: dict[Action, dict[State, State]] = {
    Action.START: {State.PENDING: State.QUEUED},
    Action.PAUSE: {State.QUEUED: State.PAUSED, State.RUNNING: State.PAUSING},
    # A failed job goes on from its last checkpoint, once its cause is mended.
    Action.RESUME: {State.PAUSED: State.QUEUED, State.FAILED: State.QUEUED},
    Action.STOP: _END,
    Action.CANCEL: _END,
}

_LEFT: dict[State, State] = {
    State.RUNNING: State.QUEUED,
    State.PAUSING: State.PAUSED,
    State.CANCELLING: State.CANCELLED,
}


def asked(action: Action, state: State) -> State | None:
    """Where an action takes a job; none where it is not allowed."""
    return _ASKED[action].get(state)


def allowed(state: State) -> tuple[Action, ...]:
    """The actions allowed in a state."""
    return tuple(action for action in Action if state in _ASKED[action])


def left(state: State) -> State:
    """Where a held job goes whose worker stops working on it without an outcome.

    Raises:
        KeyError: nobody holds a job of this state.
    """
    return _LEFT[state]


def ended(state: State, outcome: State) -> State:
    """Where a held job goes whose run came to an outcome, ``completed`` or ``failed``.

    A job that was to be cancelled is cancelled; one that was to pause has nothing left to pause.
    """
    return State.CANCELLED if state is State.CANCELLING else outcome
