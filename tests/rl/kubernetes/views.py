"""A view of a small cluster, for tests of what is measured on it."""

from innerloop.rl.kubernetes.view import ClusterView, DeploymentView, NodeView, PodView


def _pod(name: str, ready: bool = True, cpu: float = 200, memory: float = 128) -> PodView:
    return PodView(name, {}, "n1", ready, leaving=False, cpu=cpu, memory=memory)


VIEW = ClusterView(
    nodes=(NodeView("n1", True, 2000, 4096), NodeView("n2", True, 1000, 2048)),
    pods=(),
    deployments=(
        DeploymentView("web", 3, (_pod("web-1"), _pod("web-2"), _pod("web-3", ready=False))),
        None,
        DeploymentView("free", 1, (_pod("free-1", cpu=0, memory=0),)),
    ),
)
"""Deployments ``web``, one that is gone, and ``free``, whose pod reserves nothing."""
