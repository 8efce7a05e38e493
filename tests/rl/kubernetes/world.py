"""A scenario on a real control plane, and a simulation beside it that gives what would be measured."""

import secrets
from pathlib import Path

import numpy as np
from kubernetes import client

from innerloop.rl.kubernetes import ClusterSettings, Figures, KubernetesCluster
from innerloop.rl.kubernetes.view import ClusterView
from innerloop.rl.simulator import Application, Scenario, Simulation
from innerloop.rl.simulator.snapshot import Outcome
from rl.kubernetes.fake_kubelet import LABEL, FakeKubelet


class SimulatedMetrics:
    """Figures of a simulation that is moved beside the real cluster.

    Args:
        simulation: E = 1.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.last: Outcome | None = None
        """Of the simulation's last step."""

    def step(self, desired: list[int]) -> None:
        """Moves the simulation by one control step."""
        self.last = self.simulation.step(np.array([desired]))

    def read(self, view: ClusterView, settings: ClusterSettings) -> Figures:
        """What was measured, if the real cluster had behaved as the simulated one did."""
        s = self.simulation.snapshot()
        # The simulator counts violations over all applications; a share of each gives the same sum.
        requests = 0.0 if self.last is None else float(self.last.requests[0])
        late = float(self.last.violations[0]) / requests if self.last and requests else 0.0
        return Figures(
            request_rate=s.request_rate[0],
            latency=s.latency[0],
            refused=s.refused[0],
            violations=np.full(s.latency.shape[1], late),
            cpu_usage=s.cpu_usage[0],
            memory_usage=s.memory_usage[0],
            waiting=s.waiting[0],
            node_cpu=s.node_cpu[0],
            node_memory=s.node_memory[0],
            node_received=s.node_received[0],
            node_sent=s.node_sent[0],
            node_latency=s.node_latency[0],
            region_rate=s.region_rate[0],
        )


class World:
    """One scenario's namespace, nodes and deployments; everything is named after it.

    Args:
        kubeconfig: how the control plane is reached.
        admin: a connection that may do everything.
        scenario: what to build; its applications become ``app-0``, ``app-1``, ...
    """

    def __init__(self, kubeconfig: Path, admin: client.ApiClient, scenario: Scenario) -> None:
        self.kubeconfig, self.scenario = kubeconfig, scenario
        self.core, self.apps = client.CoreV1Api(admin), client.AppsV1Api(admin)
        self.namespace = f"innerloop-{secrets.token_hex(4)}"
        self.names = tuple(f"app-{number}" for number in range(len(scenario.applications)))
        startup = {name: app.startup for name, app in zip(self.names, scenario.applications, strict=True)}
        startup["bystander"] = 0.0
        self.kubelet = FakeKubelet(admin, self.namespace, scenario.nodes, self.namespace, startup)
        self.metrics = SimulatedMetrics(Simulation([scenario], [0]))

    def build(self) -> None:
        """Makes it; every pod that has a place is ready, as at the beginning of a simulation."""
        self.core.create_namespace({"metadata": {"name": self.namespace}})
        self.kubelet.join()
        for name, application in zip(self.names, self.scenario.applications, strict=True):
            self.deploy(name, application)
        self.kubelet.start_all()

    def deploy(self, name: str, application: Application, namespace: str | None = None) -> None:
        """Makes a deployment whose pods go to this world's nodes only."""
        requests = {"cpu": f"{application.cpu_request:g}m", "memory": f"{application.memory_request:g}Mi"}
        container = {"name": "main", "image": "none.invalid/none", "resources": {"requests": requests}}
        pod = {
            "nodeSelector": {LABEL: self.namespace},
            "tolerations": [{"key": LABEL, "operator": "Exists"}],
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
        }
        spec = {
            "replicas": application.replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        }
        self.apps.create_namespaced_deployment(
            namespace or self.namespace, {"metadata": {"name": name}, "spec": spec}
        )

    def remove(self) -> None:
        """Takes everything away again."""
        self.apps.delete_collection_namespaced_deployment(self.namespace)
        self.core.delete_namespace(self.namespace)
        self.kubelet.leave()

    def settings(self, **changes: object) -> ClusterSettings:
        """The settings that describe this world."""
        s = self.scenario
        regions = {
            f"region-{number}": dict(zip(self.kubelet.nodes, row, strict=True))
            for number, row in enumerate(s.round_trip)
        }
        values: dict[str, object] = {
            "namespace": self.namespace,
            "deployments": self.names,
            "kubeconfig": self.kubeconfig,
            "node_selector": f"{LABEL}={self.namespace}",
            "min_replicas": s.applications[0].min_replicas,
            "max_replicas": s.applications[0].max_replicas,
            "steps": s.steps,
            "interval": s.interval,
            "regions": regions,
            "threshold": s.threshold,
            "refused_latency": s.timeout,
            "reward": s.reward,
        }
        return ClusterSettings(**(values | changes))  # type: ignore[arg-type]

    def cluster(self, **changes: object) -> KubernetesCluster:
        """Begins an episode on it, on virtual time."""
        return KubernetesCluster(
            self.settings(**changes), self.metrics, clock=lambda: self.kubelet.now, sleep=self.wait
        )

    def wait(self, seconds: float) -> None:
        """Lets virtual time pass on the cluster and in the simulation, which gets the replicas asked for."""
        self.kubelet.advance(seconds)
        self.metrics.step([self.replicas(name) for name in self.names])

    def replicas(self, name: str, namespace: str | None = None) -> int:
        """The replicas asked for; 0 where there is no such deployment."""
        try:
            found = self.apps.read_namespaced_deployment(name, namespace or self.namespace)
        except client.ApiException as error:
            if error.status != 404:
                raise
            return 0
        return found.spec.replicas
