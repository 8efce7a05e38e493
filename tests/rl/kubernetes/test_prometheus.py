"""Figures from a Prometheus server. What the packaged queries mean is asked of Prometheus' own evaluator."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from innerloop.core.errors import InputError
from innerloop.rl.kubernetes import (
    ISTIO,
    NGINX,
    ClusterError,
    ClusterSettings,
    Figures,
    PrometheusMetrics,
    Query,
)
from innerloop.rl.kubernetes.queries import QUANTITIES
from rl.kubernetes.fake_server import Answer, Asked, FakeServer
from rl.kubernetes.views import VIEW

SETTINGS = ClusterSettings(
    "shop", ("web", "gone", "free"), retries=1, timeout=2.0, regions={"east": {}, "west": {}}
)
QUERY = "GET /api/v1/query"
MEBIBYTE = 2**20

PLAIN = {name: Query(name, "of") for name in ("request_rate", "latency")}
"""The least; the query's text is its name."""


def vector(label: str, values: dict[str, float | str]) -> Answer:
    result = [{"metric": {label: name}, "value": [1.7e9, str(value)]} for name, value in values.items()]
    return Answer({"status": "success", "data": {"resultType": "vector", "result": result}})


def by_text(**values: dict[str, float | str]) -> Callable[[Asked], Answer]:
    """Answers a query by its text."""
    return lambda asked: vector("of", values.get(asked.query["query"], {}))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as made:
        yield made


def read(server: FakeServer, queries: dict[str, Query]) -> Figures:
    figures = PrometheusMetrics(server.url, queries, sleep=lambda seconds: None).read(VIEW, SETTINGS)
    figures.check(3, 2, 2)
    return figures


def test_every_quantity_finds_its_place(server: FakeServer) -> None:
    server.answers[QUERY] = [
        by_text(
            request_rate={"web": 10, "free": 4, "elsewhere": 9},
            latency={"web": 0.1, "free": "NaN"},
            refused={"web": 0.25, "free": 1},
            late={"web": 0.5, "free": "NaN"},
            waiting={"web": 0.7},
            pod_cpu={"web-1": 0.05, "web-2": 0.15, "web-3": 9},
            pod_memory={"web-1": 64 * MEBIBYTE},
            node_cpu={"n1": 1, "n2": 0.25},
            node_memory={"n1": 1024 * MEBIBYTE},
            node_received={"n2": 12.5e6},
            node_sent={"n1": 25e6},
            node_latency={"n1": 0.3},
            region_rate={"west": 5, "east": 9},
        )
    ]
    figures = read(server, {name: Query(name, "of") for name in QUANTITIES})
    expected = {
        "request_rate": [10, 0, 4],
        # A quarter of web's requests and all of free's are refused, and count 2 s.
        "latency": [0.75 * 0.1 + 0.25 * 2, 0, 2],
        "refused": [0.25, 0, 1],
        "violations": [0.25 + 0.75 * 0.5, 0, 1],
        "waiting": [0.7, 0, 0],
        "cpu_usage": [0.5, 0, 0],
        "memory_usage": [0.5, 0, 0],
        "node_cpu": [0.5, 0.25],
        "node_memory": [0.25, 0],
        "node_received": [0, 0.1],
        "node_sent": [0.2, 0],
        "node_latency": [0.3, 0],
        "region_rate": [9, 5],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(figures, name), values, err_msg=name)


def test_what_is_not_asked_for_is_zero(server: FakeServer) -> None:
    server.answers[QUERY] = [by_text(request_rate={"web": 10}, latency={"web": 0.1})]
    figures = read(server, PLAIN)
    np.testing.assert_allclose(figures.latency, [0.1, 0, 0])
    assert figures.region_rate is None
    assert not figures.violations.any()


def test_requests_without_a_latency_are_told(server: FakeServer) -> None:
    server.answers[QUERY] = [by_text(request_rate={"web": 10}, latency={"web": "NaN"})]
    with pytest.raises(ClusterError, match="no latency of deployment web, which serves requests"):
        read(server, PLAIN)
    server.answers[QUERY] = [by_text(request_rate={"web": 10}, latency={"web": 0.1})]
    with pytest.raises(ClusterError, match=r"no late of deployment web, .*0\.25 s, must be a bound"):
        read(server, PLAIN | {"late": Query("late", "of")})


def test_the_headers_are_sent_along(server: FakeServer) -> None:
    server.answers[QUERY] = [by_text()]
    PrometheusMetrics(f"{server.url}/", PLAIN, headers={"Authorization": "Bearer t"}).read(VIEW, SETTINGS)
    assert server.asked[0].headers["Authorization"] == "Bearer t"


def test_a_passing_trouble_is_waited_out(server: FakeServer) -> None:
    server.answers[QUERY] = [Answer("starting", 503), by_text()]
    assert not read(server, PLAIN).request_rate.any()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            Answer({"status": "error", "error": "parse error:\nunexpected )"}, 400),
            "400 parse error: unexpected",
        ),
        (Answer("no", 401), "401 Unauthorized"),
        (Answer("away", 503), "503 Service Unavailable"),
        (Answer(breaks=True), "cannot reach Prometheus at http"),
        (Answer(waits=True), "cannot reach Prometheus at http.*timed out"),
        (Answer("<html>"), "what cannot be read"),
        (Answer({"data": {"resultType": "scalar", "result": [1, "2"]}}), "a scalar where a vector is needed"),
        (vector("other", {"web": 1}), "series have the label of"),
    ],
)
def test_what_goes_wrong_is_told(server: FakeServer, answer: Answer, says: str) -> None:
    server.answers[QUERY] = [answer]
    settings = ClusterSettings("shop", ("web",), retries=1, timeout=0.2)
    with pytest.raises(ClusterError, match=says) as caught:
        PrometheusMetrics(server.url, PLAIN, sleep=lambda seconds: None).read(VIEW, settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "queries", "says"),
    [
        ("prometheus:9090", PLAIN, "no address of a Prometheus server"),
        ("file:///etc/passwd", PLAIN, "no address of a Prometheus server"),
        ("http://p", PLAIN | {"speed": Query("x", "of")}, "no quantity 'speed'"),
        ("http://p", {"latency": Query("x", "of")}, "lack request_rate"),
        ("http://p", PLAIN | {"late": Query("x[$windw]", "of")}, "query of late holds a .*windw"),
    ],
)
def test_what_cannot_be_asked_is_refused(url: str, queries: dict[str, Query], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PrometheusMetrics(url, queries)


# The packaged queries, on a minute of counters


def counters(labels: str, **per_minute: float) -> list[dict[str, str]]:
    """Series that rise evenly, scraped every 15 s."""
    return [
        {"series": f"{name}{{{labels}}}", "values": f"0+{value / 4:g}x8"}
        for name, value in per_minute.items()
    ]


def histogram(name: str, labels: str, count: float, total: float, **buckets: float) -> list[dict[str, str]]:
    series = counters(labels, **{f"{name}_count": count, f"{name}_sum": total})
    for bound, value in buckets.items():
        series += counters(f'{labels},le="{bound[1:].replace("_", ".")}"', **{f"{name}_bucket": value})
    return series


def istio() -> list[dict[str, str]]:
    of = 'reporter="destination",destination_workload_namespace="shop",'
    of += 'destination_workload="web",response_code='
    name = "istio_request_duration_milliseconds"
    return [
        *counters(f'{of}"200"', istio_requests_total=540),
        *counters(f'{of}"503"', istio_requests_total=60),
        *counters(f'{of}"200"'.replace("shop", "other"), istio_requests_total=1000),
        *counters(f'{of}"200"'.replace('destination"', 'source"', 1), istio_requests_total=1000),
        *histogram(name, f'{of}"200"', 540, 540 * 80, b100=400, b250=486),
        *histogram(name, f'{of}"503"', 60, 0, b100=60, b250=60),
    ]


def nginx() -> list[dict[str, str]]:
    of = 'exported_namespace="shop",exported_service="web",status='
    name = "nginx_ingress_controller_request_duration_seconds"
    return [
        *counters(f'{of}"200"', nginx_ingress_controller_requests=540),
        *counters(f'{of}"503"', nginx_ingress_controller_requests=60),
        *histogram(name, f'{of}"200"', 540, 540 * 0.08, b0_1=400, b0_25=486),
        *histogram(name, f'{of}"503"', 60, 0, b0_1=60, b0_25=60),
    ]


def kubelet() -> list[dict[str, str]]:
    pod = 'namespace="shop",pod="web-1",node="n1",container='
    return [
        *counters(f'{pod}"main"', container_cpu_usage_seconds_total=6),
        *counters(f'{pod}"proxy"', container_cpu_usage_seconds_total=3),
        *counters(f'{pod}""', container_cpu_usage_seconds_total=9),  # the sum that cAdvisor gives as well
        *counters(
            'id="/",node="n1"',
            container_cpu_usage_seconds_total=60,
            container_network_receive_bytes_total=6e6,
        ),
        *counters('id="/",node="n1"', container_network_transmit_bytes_total=12e6),
        {"series": f'container_memory_working_set_bytes{{{pod}"main"}}', "values": "1000x8"},
        {"series": 'container_memory_working_set_bytes{id="/",node="n1"}', "values": "5000x8"},
    ]


EXPECTED = {
    "request_rate": 10.0,
    "latency": 0.08,
    "refused": 0.1,
    "late": 0.1,
    "pod_cpu": 0.15,
    "pod_memory": 1000.0,
    "node_cpu": 1.0,
    "node_memory": 5000.0,
    "node_received": 1e5,
    "node_sent": 2e5,
}
NAMES = {"destination_workload": "web", "exported_service": "web", "pod": "web-1", "node": "n1"}


@pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed (it comes with Prometheus)"
)
@pytest.mark.parametrize(("queries", "series"), [(ISTIO, istio()), (NGINX, nginx())], ids=["istio", "nginx"])
def test_the_packaged_queries_mean_what_they_should(
    queries: dict[str, Query], series: list[dict[str, str]], tmp_path: Path, server: FakeServer
) -> None:
    server.answers[QUERY] = [by_text()]
    asking = {n: Query(q.promql, "of") for n, q in queries.items()}
    PrometheusMetrics(server.url, asking).read(VIEW, SETTINGS)
    texts = dict(zip(queries, (asked.query["query"] for asked in server.asked), strict=True))
    assert set(texts) == set(EXPECTED)
    # Rounded, since rates are sums of many floats.
    tests = [
        {
            "expr": f"round(1e6 * ({texts[name]}))",
            "eval_time": "2m",
            "exp_samples": [{"labels": _labels(query.label), "value": 1e6 * EXPECTED[name]}],
        }
        for name, query in queries.items()
    ]
    case = {"interval": "15s", "input_series": series + kubelet(), "promql_expr_test": tests}
    path = tmp_path / "case.yml"
    path.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "15s", "tests": [case]}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _labels(label: str) -> str:
    return f'{{{label}="{NAMES[label]}"}}'
