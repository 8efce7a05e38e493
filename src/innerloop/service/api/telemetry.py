"""What the service tells Prometheus: requests by route, jobs by kind and state."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from innerloop.service.jobs.job import Kind
from innerloop.service.jobs.states import State
from innerloop.service.jobs.store import JobStore


class Telemetry:
    """Counts of one service.

    Args:
        store: of jobs.
    """

    def __init__(self, store: JobStore) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Jobs(store))
        self.requests = Counter(
            "innerloop_requests", "Requests answered", ["method", "route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "innerloop_request_seconds",
            "Seconds until an answer began",
            ["method", "route"],
            registry=self._registry,
        )

    def exposition(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _Jobs(Collector):
    def __init__(self, store: JobStore) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The jobs of every kind in every state."""
        family = GaugeMetricFamily("innerloop_jobs", "Jobs", labels=["kind", "state"])
        counts = self._store.counts()
        for kind in Kind:
            for state in State:
                family.add_metric([kind, state], counts.get((kind, state), 0))
        yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """What is collected, known without asking the store."""
        yield GaugeMetricFamily("innerloop_jobs", "Jobs", labels=["kind", "state"])


METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


class Counted:
    """Counts every answer.

    Args:
        app: what comes next.
        telemetry: where to.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route's pattern and a known method: whatever a client makes up would be a series each.
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in METHODS else "other"
                self._telemetry.requests.labels(method, route, message["status"]).inc()
                self._telemetry.seconds.labels(method, route).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, counting)
