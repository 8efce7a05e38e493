"""Which deployments of a real cluster may be scaled, how it is reached, and what counts."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.rl.simulator.scenario import RewardWeights

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""What Kubernetes allows as a name; checked here because names become parts of addresses."""


@dataclass(frozen=True)
class ClusterSettings:
    """One episode on a real cluster.

    Args:
        namespace: the only one that is touched.
        deployments: the only ones in it that are scaled; their order is that of the observations.
        kubeconfig: the file that says how to reach the cluster; none takes what KUBECONFIG names, else
            ``~/.kube/config``, else the service account of the pod this runs in.
        context: of the kubeconfig; none takes its current one.
        node_selector: labels of the nodes to look at, as ``kubectl get nodes -l`` takes them; empty for all.
        dry_run: let the server check every change and make none.
        restore: put the replicas back when the episode is left.
        min_replicas: never fewer.
        max_replicas: never more.
        steps: control steps in an episode.
        interval: seconds between them.
        timeout: seconds that the server may take for one request.
        retries: how often a request is repeated that met a conflict, no answer or a server in trouble.
        regions: seconds of round trip between each region of users and each node, by their names; none is
            one region that is no distance from any node.
        threshold: seconds of latency above which a request violates the objective.
        refused_latency: seconds that a refused request counts as.
        reward: weights.

    Raises:
        InputError: a name, a number or a count that cannot be.
    """

    namespace: str
    deployments: tuple[str, ...]
    kubeconfig: Path | None = None
    context: str | None = None
    node_selector: str = ""
    dry_run: bool = False
    restore: bool = True
    min_replicas: int = 1
    max_replicas: int = 8
    steps: int = 40
    interval: float = 15.0
    timeout: float = 10.0
    retries: int = 3
    regions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    threshold: float = 0.25
    refused_latency: float = 2.0
    reward: RewardWeights = field(default_factory=RewardWeights)

    def __post_init__(self) -> None:
        """Refuses what no cluster could be asked."""
        if not self.deployments:
            raise InputError(
                "a real cluster needs the names of the deployments that may be scaled; list them"
            )
        for what, name in (("namespace", self.namespace), *(("deployment", d) for d in self.deployments)):
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"'{name}' is no name of a {what}; use lower-case letters, digits and '-', "
                    "without the namespace in front"
                )
        if twice := sorted({d for d in self.deployments if self.deployments.count(d) > 1}):
            raise InputError(f"deployment {twice[0]} is listed twice; list it once")
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise InputError(
                f"min_replicas {self.min_replicas} and max_replicas {self.max_replicas} do not fit together; "
                "0 <= min_replicas <= max_replicas and 1 <= max_replicas"
            )
        if self.steps < 1:
            raise InputError(f"an episode needs at least one step, not {self.steps}; raise steps")
        if self.retries < 0:
            raise InputError(f"retries is {self.retries}; use 0 or more")
        for what in ("interval", "timeout", "threshold", "refused_latency"):
            value = getattr(self, what)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{what} is {value} s; it must be above 0")
        for region, ways in self.regions.items():
            for node, seconds in ways.items():
                if not (math.isfinite(seconds) and seconds >= 0):
                    raise InputError(
                        f"the round trip from region {region} to node {node} is {seconds} s; use 0 or more"
                    )
