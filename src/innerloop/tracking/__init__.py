"""Where training metrics go besides the JSON lines that the core always writes.

One module a sink, each imported when it is asked for; the protocol they follow stands in
``innerloop.core.tracking``.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from innerloop.core.errors import InputError
from innerloop.core.tracking import Fanout, JsonlTracker, Tracker

SINKS = ("console", "tensorboard", "wandb")


class Named(Protocol):
    """What a run's settings say of its tracking."""

    @property
    def logger(self) -> Sequence[str]:
        """Sinks besides the metrics file."""

    @property
    def project_name(self) -> str:
        """The project's name in W&B."""

    @property
    def experiment_name(self) -> str:
        """The run's name."""


def trackers_of_run(
    named: Named, folder: Path, total_steps: int, start_step: int, config: Mapping[str, object]
) -> Tracker:
    """All trackers of a run as one: the metrics file in its folder, and the sinks its settings name.

    Args:
        named: the settings.
        folder: the run's folder.
        total_steps: where the run ends.
        start_step: the step it starts after.
        config: the resolved settings, recorded where a sink has a place for them.

    Raises:
        InputError: as :func:`build`.
    """
    project, experiment = named.project_name, named.experiment_name
    sinks = build(named.logger, folder, project, experiment, total_steps, start_step, config)
    return Fanout([JsonlTracker(folder, start_step), *sinks])


def build(
    names: Sequence[str],
    folder: Path,
    project: str,
    experiment: str,
    total_steps: int,
    start_step: int,
    config: Mapping[str, object],
) -> list[Tracker]:
    """The named sinks, open, in the order given.

    Args:
        names: any of ``console``, ``tensorboard``, ``wandb``; one named twice is made once.
        folder: the run's folder.
        project: the project's name in W&B.
        experiment: the run's name.
        total_steps: where the run ends.
        start_step: the step it starts after.
        config: the resolved settings, recorded where the sink has a place for them.

    Raises:
        InputError: for an unknown name, or a sink whose library is not installed; nothing is opened then.
    """
    for name in names:
        if name not in SINKS:
            close = difflib.get_close_matches(name, SINKS, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(SINKS)}"
            raise InputError(f"trainer.logger: no sink '{name}'{hint}")
    makers: list[Callable[[], Tracker]] = []
    for name in dict.fromkeys(names):
        # Imports, which show what is not installed, come before the first sink opens.
        if name == "console":
            from innerloop.tracking.console import ConsoleTracker

            makers.append(lambda: ConsoleTracker(experiment, total_steps, start_step))
        elif name == "tensorboard":
            from innerloop.tracking.tensorboard import TensorBoardTracker

            makers.append(lambda: TensorBoardTracker(folder, config, start_step))
        else:
            from innerloop.tracking.wandb import WandbTracker

            makers.append(lambda: WandbTracker(folder, project, experiment, config, start_step))
    return [make() for make in makers]
