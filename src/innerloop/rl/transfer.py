"""Transfer between clusters: which layers stay as they are, and when they may learn."""

from dataclasses import dataclass

from innerloop.core.errors import InputError
from innerloop.rl.artifacts import Artifact
from innerloop.rl.config import Config, TransferConfig
from innerloop.rl.policy import HEADS, LAYERS, ClusterPolicy, named_layers


@dataclass(frozen=True)
class FreezingPlan:
    """What is frozen in each round.

    - ``feature_extraction``: all but the heads, throughout.
    - ``fine_tuning``: nothing.
    - ``layer_wise``: the frozen layers at first; every ``thaw_every`` rounds one of them thaws, that nearest
      to the action first (Howard and Ruder 2018).

    Raises:
        InputError: a frozen layer that there is not.
    """

    settings: TransferConfig

    def __post_init__(self) -> None:
        """Refuses layers that there are not, whatever the kind."""
        named_layers(self.settings.frozen_layers)

    def frozen(self, done: int) -> tuple[str, ...]:
        """The layers frozen after so many rounds."""
        match self.settings.kind:
            case "feature_extraction":
                return tuple(layer for layer in LAYERS if layer not in HEADS)
            case "fine_tuning":
                return ()
            case "layer_wise":
                outermost_first = sorted(set(self.settings.frozen_layers))
                left = len(outermost_first) - done // self.settings.thaw_every
                return named_layers(outermost_first[: max(left, 0)])


def transferred_policy(source: Artifact, config: Config) -> ClusterPolicy:
    """The source's policy for the shape of cluster that the settings name.

    Raises:
        InputError: a source that controls something else, or whose network has other sizes.
    """
    if source.config.shape != config.shape:
        raise InputError(
            f"the source policy is {source.config.shape}, the settings ask for {config.shape}; "
            "give both the same policy section and a family of the same kind"
        )
    policy = ClusterPolicy(config.shape, config.family.layout)
    policy.load_state_dict(source.policy.state_dict())
    return policy
