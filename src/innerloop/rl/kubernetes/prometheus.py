"""Figures from a Prometheus server, over its HTTP API."""

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from string import Template
from urllib.parse import urlencode, urlsplit

import numpy as np

from innerloop.core.errors import InputError
from innerloop.rl.kubernetes.errors import ClusterError, pause_before
from innerloop.rl.kubernetes.metrics import Figures, node_share, pod_usage
from innerloop.rl.kubernetes.queries import ISTIO, QUANTITIES, Query
from innerloop.rl.kubernetes.settings import ClusterSettings
from innerloop.rl.kubernetes.view import MEBIBYTE, ClusterView
from innerloop.rl.simulator.padding import ratio
from innerloop.rl.simulator.snapshot import Array

MEGABIT = 1e6 / 8
"""Bytes."""


class PrometheusMetrics:
    """Asks one query a quantity.

    A deployment that has no series of ``request_rate`` has no requests. One that serves requests must have a
    latency and a share above the threshold, which must therefore be a bound of the histogram.

    Args:
        url: of the server, for example ``http://prometheus.monitoring:9090``.
        queries: by quantity; ``request_rate`` and ``latency`` at least. Quantities left out are zeros.
        window: seconds that rates are averaged over; at least twice the time between two scrapes.
        network: Mbit a second of a node, each way.
        headers: sent along, for example ``Authorization``.
        sleep: waits so many seconds before a query is repeated.

    Raises:
        InputError: an address that is none, or queries that do not fit.
    """

    def __init__(
        self,
        url: str,
        queries: Mapping[str, Query] = ISTIO,
        window: float = 60.0,
        network: float = 1000.0,
        headers: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"'{url}' is no address of a Prometheus server; use one like http://prometheus:9090"
            )
        if unknown := sorted(set(queries) - set(QUANTITIES)):
            raise InputError(f"no quantity '{unknown[0]}' to query; there are {', '.join(QUANTITIES)}")
        if missing := [name for name in ("request_rate", "latency") if name not in queries]:
            raise InputError(f"the queries lack {missing[0]}; add it")
        if window < 1 or network <= 0:
            raise InputError("window must be at least 1 s, and network above 0 Mbit a second")
        self._url, self._queries, self._window, self._network = url.rstrip("/"), queries, window, network
        self._headers, self._sleep = dict(headers or {}), sleep
        for name in queries:
            self._text(
                name, ClusterSettings("any", ("any",))
            )  # a wrong template shows now and not mid-episode

    def read(self, view: ClusterView, settings: ClusterSettings) -> Figures:
        """See :class:`~innerloop.rl.kubernetes.metrics.MetricsSource`."""
        found = {name: self._ask(name, settings) for name in self._queries}
        nodes = [node.name for node in view.nodes]
        rate = _ordered(found["request_rate"], settings.deployments)
        refused = np.minimum(_ordered(found.get("refused", {}), settings.deployments), 1.0)
        served = rate * (1 - refused) > 0
        latency = self._of_served("latency", found, served, settings)
        late = self._of_served("late", found, served, settings) if "late" in found else np.zeros(len(rate))
        cpu_usage, memory_usage = pod_usage(
            view, _times(found.get("pod_cpu", {}), 1000), _times(found.get("pod_memory", {}), 1 / MEBIBYTE)
        )
        network = self._network * MEGABIT
        regions = found.get("region_rate") if settings.regions else None
        return Figures(
            request_rate=rate,
            latency=ratio(rate * ((1 - refused) * latency + refused * settings.refused_latency), rate),
            refused=refused,
            violations=refused + (1 - refused) * np.clip(late, 0.0, 1.0),
            cpu_usage=cpu_usage,
            memory_usage=memory_usage,
            waiting=_ordered(found.get("waiting", {}), settings.deployments),
            node_cpu=node_share(view, _times(found.get("node_cpu", {}), 1000), "cpu"),
            node_memory=node_share(view, _times(found.get("node_memory", {}), 1 / MEBIBYTE), "memory"),
            node_received=_ordered(found.get("node_received", {}), nodes) / network,
            node_sent=_ordered(found.get("node_sent", {}), nodes) / network,
            node_latency=_ordered(found.get("node_latency", {}), nodes),
            region_rate=None if regions is None else _ordered(regions, list(settings.regions)),
        )

    def _of_served(
        self, name: str, found: Mapping[str, Mapping[str, float]], served: Array, settings: ClusterSettings
    ) -> Array:
        """A figure that every deployment must have that served requests; 0 for the others."""
        for deployment, has_served in zip(settings.deployments, served, strict=True):
            if has_served and deployment not in found[name]:
                hint = (
                    f"; the threshold, {settings.threshold:g} s, must be a bound of the histogram"
                    if name == "late"
                    else ""
                )
                raise ClusterError(
                    f"{self._url} has no {name} of deployment {deployment}, which serves requests; "
                    f"check its query{hint}"
                )
        return np.where(served, _ordered(found[name], settings.deployments), 0.0)

    def _text(self, name: str, settings: ClusterSettings) -> str:
        bounds = {"seconds": settings.threshold, "milliseconds": settings.threshold * 1000}
        try:
            return Template(self._queries[name].promql).substitute(
                {unit: f"{bound:g}".replace(".", "[.]") + "([.]0)?" for unit, bound in bounds.items()},
                namespace=settings.namespace,
                window=f"{round(self._window)}s",
            )
        except (KeyError, ValueError) as error:
            raise InputError(
                f"the query of {name} holds a $ that stands for nothing ({error}); there are $namespace, "
                "$window, $seconds and $milliseconds, and $$ for a $"
            ) from error

    def _ask(self, name: str, settings: ClusterSettings) -> dict[str, float]:
        """One query's values by the name in its label; those that are not numbers are left out."""
        address = f"{self._url}/api/v1/query?{urlencode({'query': self._text(name, settings)})}"
        request = urllib.request.Request(address, headers=self._headers)
        for attempt in range(settings.retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=settings.timeout) as answer:
                    return self._values(name, answer.read())
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == settings.retries:
                    raise ClusterError(
                        f"{self._url} refuses the query of {name}: {error.code} {_reason(error)}; "
                        "mend the query"
                    ) from error
            except (OSError, HTTPException) as error:
                if attempt == settings.retries:
                    raise ClusterError(
                        f"cannot reach Prometheus at {self._url}: {error}; check that it is up and the "
                        "address right"
                    ) from error
            self._sleep(pause_before(attempt))
        raise AssertionError("the last attempt returns or raises")

    def _values(self, name: str, body: bytes) -> dict[str, float]:
        label = self._queries[name].label
        try:
            series = json.loads(body)["data"]
            if series["resultType"] != "vector":
                raise ValueError(f"a {series['resultType']} where a vector is needed")
            values = {one["metric"][label]: float(one["value"][1]) for one in series["result"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(
                f"{self._url} answers the query of {name} with what cannot be read ({error}); "
                f"it must give a vector whose series have the label {label}"
            ) from error
        return {which: value for which, value in values.items() if math.isfinite(value)}


def _reason(error: urllib.error.HTTPError) -> str:
    body = error.read()
    try:
        return " ".join(str(json.loads(body)["error"]).split())[:300]
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


def _ordered(values: Mapping[str, float], names: tuple[str, ...] | list[str]) -> Array:
    return np.array([max(values.get(name, 0.0), 0.0) for name in names], dtype=np.float64)


def _times(values: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in values.items()}
