"""Real clusters over the official client: seen as the simulated ones are, and scaled through ``/scale``."""

from innerloop.rl.kubernetes.cluster import FailedStep, KubernetesCluster
from innerloop.rl.kubernetes.errors import ClusterError
from innerloop.rl.kubernetes.metrics import Figures, MetricsSource, ResourceMetrics
from innerloop.rl.kubernetes.prometheus import PrometheusMetrics
from innerloop.rl.kubernetes.queries import ISTIO, NGINX, Query
from innerloop.rl.kubernetes.settings import ClusterSettings

__all__ = [
    "ISTIO",
    "NGINX",
    "ClusterError",
    "ClusterSettings",
    "FailedStep",
    "Figures",
    "KubernetesCluster",
    "MetricsSource",
    "PrometheusMetrics",
    "Query",
    "ResourceMetrics",
]
