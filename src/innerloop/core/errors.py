"""The errors a user can mend. Each carries one line: what is wrong, where, and how to mend it."""


class InnerloopError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        told_by_main: whether another process of the same run, the main one, says it too.
    """

    told_by_main = False


class InputError(InnerloopError):
    """A usage or input error: bad file, bad setting, missing model. The command line exits with 2."""


class NonFiniteError(InnerloopError):
    """A loss or gradient became NaN or infinite.

    Args:
        what: the quantity, for example ``"support loss"``.
        task: the task's name.
        step: the meta-step, counted from 1.
    """

    def __init__(self, what: str, task: str, step: int) -> None:
        self.what, self.task, self.step = what, task, step
        super().__init__(
            f"{what} of task '{task}' is not finite at step {step}; "
            "lower the inner or outer learning rate, or clip the gradient"
        )

    def __reduce__(self) -> tuple[type["NonFiniteError"], tuple[str, str, int], dict[str, object]]:
        """As it travels between the processes of a run."""
        return type(self), (self.what, self.task, self.step), {**self.__dict__, "args": self.args}


class Interrupted(InnerloopError):  # noqa: N818 - it reports a request, not a fault
    """A signal asked the run to stop; the state is saved."""


def missing_extra(library: str, extra: str) -> InputError:
    """The one line shown when an optional library is not installed."""
    return InputError(f"'{library}' is not installed; install it with: pip install 'innerloop[{extra}]'")
