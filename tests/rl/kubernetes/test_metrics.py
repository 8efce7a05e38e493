"""Figures from the resource metrics API, as metrics-server serves it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from innerloop.rl.kubernetes import ClusterError, ClusterSettings, ResourceMetrics
from innerloop.rl.kubernetes.api import KubernetesApi
from innerloop.rl.kubernetes.metrics import Figures
from rl.kubernetes.fake_server import Answer, FakeServer
from rl.kubernetes.views import VIEW

GROUP = "/apis/metrics.k8s.io/v1beta1"


def pod_metrics(name: str, *usages: tuple[str, str]) -> dict[str, object]:
    containers = [{"name": "c", "usage": {"cpu": cpu, "memory": memory}} for cpu, memory in usages]
    return {"metadata": {"name": name, "namespace": "shop"}, "window": "15s", "containers": containers}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as made:
        yield made


def read(server: FakeServer, folder: Path) -> Figures:
    settings = ClusterSettings(
        "shop", ("web", "gone", "free"), kubeconfig=server.kubeconfig(folder), retries=0
    )
    return ResourceMetrics(KubernetesApi(settings)).read(VIEW, settings)


def test_usage_is_a_share_of_what_ready_pods_reserve(server: FakeServer, tmp_path: Path) -> None:
    pods = [
        pod_metrics("web-1", ("50000000n", "32Mi"), ("50m", "32Mi")),  # a pod with a proxy beside it
        pod_metrics("web-3", ("200m", "128Mi")),  # not ready
        pod_metrics("free-1", ("10m", "1Mi")),  # reserves nothing
        pod_metrics("other", ("1", "1Gi")),
    ]
    nodes = [{"metadata": {"name": "n1"}, "usage": {"cpu": "500m", "memory": "1Gi"}}]
    server.answers[f"GET {GROUP}/namespaces/shop/pods"] = [Answer({"items": pods})]
    server.answers[f"GET {GROUP}/nodes"] = [Answer({"items": nodes})]
    figures = read(server, tmp_path)
    figures.check(3, 2, 1)
    # web-2 has not been measured and counts on neither side.
    np.testing.assert_allclose(figures.cpu_usage, [0.5, 0, 0])
    np.testing.assert_allclose(figures.memory_usage, [0.5, 0, 0])
    np.testing.assert_allclose(figures.node_cpu, [0.25, 0])
    np.testing.assert_allclose(figures.node_memory, [0.25, 0])
    assert not figures.request_rate.any()
    assert not figures.latency.any()


def test_a_cluster_without_the_metrics_api_is_told(server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r'has no pods in namespace shop; .*API group "metrics.k8s.io"'):
        read(server, tmp_path)


@pytest.mark.parametrize("items", ["nothing", [{"metadata": {}}], [pod_metrics("web-1", ("much", "1Mi"))]])
def test_metrics_that_cannot_be_read_are_told(server: FakeServer, tmp_path: Path, items: object) -> None:
    server.answers[f"GET {GROUP}/namespaces/shop/pods"] = [Answer({"items": items})]
    with pytest.raises(ClusterError, match="gives metrics that cannot be read"):
        read(server, tmp_path)


def test_figures_of_the_wrong_length_are_refused() -> None:
    deployments, nodes = np.zeros(2), np.zeros(3)
    figures = Figures(*[deployments] * 7, *[nodes] * 5)
    figures.check(2, 3, 1)
    with pytest.raises(ClusterError, match=r"node_cpu is .* must be 4 finite numbers"):
        figures.check(2, 4, 1)
    with pytest.raises(ClusterError, match="region_rate is"):
        Figures(*[deployments] * 7, *[nodes] * 5, region_rate=np.zeros(2)).check(2, 3, 1)
