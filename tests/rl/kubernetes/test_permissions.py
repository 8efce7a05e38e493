"""An episode whose user may do less than it needs; no control plane is needed, since a fake one forbids."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from innerloop.rl.kubernetes import ClusterError, ClusterSettings, Figures, KubernetesCluster
from innerloop.rl.kubernetes.view import ClusterView
from rl.kubernetes.fake_server import Answer, FakeServer, refusal

DEPLOYMENT = "/apis/apps/v1/namespaces/shop/deployments/web"
LOOKS = ("/api/v1/nodes", "/api/v1/namespaces/shop/pods", DEPLOYMENT)
FORBIDDEN = refusal(403, "no")


class NoMetrics:
    def read(self, view: ClusterView, settings: ClusterSettings) -> Figures:
        return Figures(*[np.zeros(1)] * 12)


class Shop:
    """One node and one deployment, whose replicas are what was last asked for."""

    def __init__(self, server: FakeServer, folder: Path) -> None:
        self.server, self.replicas = server, 2
        self.settings = ClusterSettings(
            "shop", ("web",), kubeconfig=server.kubeconfig(folder), retries=0, interval=0.01
        )
        status = {"allocatable": {"cpu": "1"}, "conditions": [{"type": "Ready", "status": "True"}]}
        server.answers = {
            f"GET {LOOKS[0]}": [
                Answer({"metadata": {}, "items": [{"metadata": {"name": "n1"}, "status": status}]})
            ],
            f"GET {LOOKS[1]}": [Answer({"metadata": {}, "items": []})],
            f"GET {LOOKS[2]}": [lambda asked: Answer(self._deployment())],
            f"GET {DEPLOYMENT}/scale": [lambda asked: Answer(self._scale())],
            f"PUT {DEPLOYMENT}/scale": [self._write],
        }

    def begin(self) -> KubernetesCluster:
        return KubernetesCluster(self.settings, NoMetrics())

    def forbid(self, request: str) -> None:
        self.server.answers[request] = [FORBIDDEN]

    def _deployment(self) -> dict[str, object]:
        spec = {"replicas": self.replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {}}
        return {"metadata": {"name": "web"}, "spec": spec}

    def _scale(self) -> dict[str, object]:
        return {"metadata": {"name": "web"}, "spec": {"replicas": self.replicas}}

    def _write(self, asked: object) -> Answer:
        if not asked.query:  # type: ignore[attr-defined] - a dry run has one
            self.replicas = asked.body["spec"]["replicas"]  # type: ignore[attr-defined]
        return Answer(self._scale())


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with FakeServer() as server:
        yield Shop(server, tmp_path)


def test_an_episode_that_may_not_scale_does_not_begin(shop: Shop) -> None:
    shop.forbid(f"PUT {DEPLOYMENT}/scale")
    with pytest.raises(ClusterError, match="grant verb update on resource deployments/scale"):
        shop.begin()


@pytest.mark.parametrize("path", LOOKS)
def test_an_episode_that_may_not_look_does_not_begin(shop: Shop, path: str) -> None:
    shop.forbid(f"GET {path}")
    with pytest.raises(ClusterError, match=r"forbids to (get|list) (nodes|pods|deployments)"):
        shop.begin()
    assert shop.replicas == 2


@pytest.mark.parametrize("path", LOOKS)
def test_an_episode_that_may_look_no_longer_ends_and_puts_replicas_back(shop: Shop, path: str) -> None:
    with pytest.raises(ClusterError, match="forbids to"), shop.begin() as cluster:  # noqa: PT012
        cluster.step(np.array([[5]]))
        assert shop.replicas == 5
        shop.forbid(f"GET {path}")
        cluster.step(np.array([[6]]))
    assert shop.replicas == 2


def test_a_scale_that_is_forbidden_later_is_a_failed_step(shop: Shop) -> None:
    cluster = shop.begin()
    cluster.step(np.array([[3]]))
    shop.forbid(f"PUT {DEPLOYMENT}/scale")
    cluster.step(np.array([[4]]))
    assert cluster.snapshot().desired.tolist() == [[3]]
    assert [failed.step for failed in cluster.failed_steps] == [2]
    with pytest.raises(ClusterError, match=r"scale web to 2 by hand .* grant verb update"):
        cluster.restore()


def test_after_a_dry_run_there_is_nothing_to_put_back(shop: Shop) -> None:
    shop.settings = replace(shop.settings, dry_run=True)
    with shop.begin() as cluster:
        cluster.step(np.array([[5]]))
        asked = len(shop.server.asked)
    assert len(shop.server.asked) == asked
    assert shop.replicas == 2


def test_the_control_step_takes_as_long_as_it_should(shop: Shop) -> None:
    now, slept = [0.0], []
    cluster = KubernetesCluster(shop.settings, NoMetrics(), clock=lambda: now[0], sleep=slept.append)
    shop.server.answers[f"PUT {DEPLOYMENT}/scale"] = [lambda asked: _late(now, shop, asked)]
    cluster.step(np.array([[3]]))
    assert slept == [pytest.approx(0.01 - 0.004)]


def _late(now: list[float], shop: Shop, asked: object) -> Answer:
    """An answer for which the server took 4 ms."""
    now[0] += 0.004
    return shop._write(asked)
