"""What Prometheus is asked for under two usual ways into a cluster: Istio's proxies and the NGINX ingress.

In the text ``$namespace``, ``$window``, ``$seconds`` and ``$milliseconds`` stand for the namespace, the time
that is averaged over, and the threshold as a pattern of a bucket's bound ``le``.
"""

from dataclasses import dataclass

QUANTITIES = (
    "request_rate",
    "latency",
    "refused",
    "late",
    "waiting",
    "pod_cpu",
    "pod_memory",
    "node_cpu",
    "node_memory",
    "node_received",
    "node_sent",
    "node_latency",
    "region_rate",
)
"""What can be asked for.

By deployment: requests a second, mean seconds of the served ones, the share that was refused, the share of
the served ones above the threshold, seconds that a new request would wait. By pod and by node: cores and
bytes in use. By node: bytes a second received and sent, mean seconds of a request. By region: requests a
second.
"""


@dataclass(frozen=True)
class Query:
    """One question.

    Args:
        promql: the text.
        label: of the result's series: holds the name of the deployment, pod, node or region.
    """

    promql: str
    label: str


def _served(
    label: str, requests: str, duration: str, unit: str, code: str, selector: str
) -> dict[str, Query]:
    """The questions about requests, of a counter of requests and a histogram of their duration."""
    by, bad = f"sum by ({label})", f'{code}=~"429|502|503|504"'
    good = bad.replace("=~", "!~")

    def rate(series: str, condition: str = "") -> str:
        return f"{by} (rate({series}{{{selector}{',' if condition else ''}{condition}}}[$window]))"

    bound = f'{good},le=~"${unit}"'
    scale = " / 1000" if unit == "milliseconds" else ""
    count = rate(f"{duration}_count", good)
    return {
        "request_rate": Query(rate(requests), label),
        "latency": Query(f"{rate(f'{duration}_sum', good)} / {count}{scale}", label),
        "refused": Query(f"{rate(requests, bad)} / {rate(requests)}", label),
        "late": Query(f"1 - {rate(f'{duration}_bucket', bound)} / {count}", label),
    }


def _used(series: str, by: str, selector: str, counted: bool) -> Query:
    inner = f"rate({series}{{{selector}}}[$window])" if counted else f"{series}{{{selector}}}"
    return Query(f"sum by ({by}) ({inner})", by)


_POD = 'namespace="$namespace",container!="",container!="POD"'
KUBELET: dict[str, Query] = {
    "pod_cpu": _used("container_cpu_usage_seconds_total", "pod", _POD, counted=True),
    "pod_memory": _used("container_memory_working_set_bytes", "pod", _POD, counted=False),
    "node_cpu": _used("container_cpu_usage_seconds_total", "node", 'id="/"', counted=True),
    "node_memory": _used("container_memory_working_set_bytes", "node", 'id="/"', counted=False),
    "node_received": _used("container_network_receive_bytes_total", "node", 'id="/"', counted=True),
    "node_sent": _used("container_network_transmit_bytes_total", "node", 'id="/"', counted=True),
}
"""CPU, memory and network as the kubelets measure them; the scraper must add the label ``node``."""

ISTIO: dict[str, Query] = KUBELET | _served(
    label="destination_workload",
    requests="istio_requests_total",
    duration="istio_request_duration_milliseconds",
    unit="milliseconds",
    code="response_code",
    selector='reporter="destination",destination_workload_namespace="$namespace"',
)
"""Requests as Istio's proxies count them, by the deployment that serves them."""

NGINX: dict[str, Query] = KUBELET | _served(
    label="exported_service",
    requests="nginx_ingress_controller_requests",
    duration="nginx_ingress_controller_request_duration_seconds",
    unit="seconds",
    code="status",
    selector='exported_namespace="$namespace"',
)
"""Requests as the NGINX ingress controller counts them, by service, which must be named as its deployment."""
