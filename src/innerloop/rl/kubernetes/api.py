"""The few questions asked of an API server, over the official client.

Each is bounded in time, repeated where that may help, and clear when refused. Everything is only read but the
``/scale`` of the listed deployments. What the answers mean is in ``view.py``.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from innerloop.core.errors import InputError, missing_extra
from innerloop.rl.kubernetes.settings import ClusterSettings

try:
    from kubernetes import client
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
except ImportError as error:
    raise missing_extra("kubernetes", "k8s") from error
from urllib3.exceptions import HTTPError
from yaml import YAMLError  # type: ignore[import-untyped]

from innerloop.rl.kubernetes.errors import (
    ClusterError,
    ConflictError,
    Request,
    explain,
    is_passing,
    pause_before,
)

T = TypeVar("T")

_PAGE = 500


class KubernetesApi:
    """One API server, as one user.

    Args:
        settings: how it is reached, and what may be scaled.
        sleep: waits so many seconds before a request is repeated.

    Raises:
        InputError: no configuration, or one that does not hold what the settings name.
    """

    def __init__(self, settings: ClusterSettings, sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings, self._sleep = settings, sleep
        configuration = client.Configuration()
        self._config = _load(settings, configuration)
        # Repeating is done here, where it is counted; the connection's own tries would multiply the time.
        configuration.retries = False
        self.server = str(configuration.host)
        """The address of the API server."""
        connection = client.ApiClient(configuration)
        self._core, self._apps = client.CoreV1Api(connection), client.AppsV1Api(connection)
        self._custom = client.CustomObjectsApi(connection)
        self._limit = float(settings.timeout)
        self._namespace = f"namespace {settings.namespace}"

    def nodes(self) -> list[client.V1Node]:
        """The nodes that the settings select."""
        request = Request("list", "nodes", "", "the cluster")
        selector = self.settings.node_selector or None
        return self._pages(
            request,
            lambda start: self._core.list_node(
                label_selector=selector, limit=_PAGE, _continue=start, _request_timeout=self._limit
            ),
        )

    def pods(self) -> list[client.V1Pod]:
        """The pods of the namespace."""
        request = Request("list", "pods", "", self._namespace)
        return self._pages(
            request,
            lambda start: self._core.list_namespaced_pod(
                self.settings.namespace, limit=_PAGE, _continue=start, _request_timeout=self._limit
            ),
        )

    def deployment(self, name: str) -> client.V1Deployment:
        """A deployment of the namespace.

        Raises:
            DeploymentGoneError: there is none of this name.
        """
        request = Request("get", "deployments", "apps", self._namespace, name)
        return self._ask(
            request,
            lambda: self._apps.read_namespaced_deployment(
                name, self.settings.namespace, _request_timeout=self._limit
            ),
        )

    def scale(self, name: str, replicas: int) -> None:
        """Asks for so many replicas; with ``dry_run`` the server only checks whether it would do it.

        Raises:
            InputError: the deployment is not listed.
            ClusterError: it could not be done.
        """
        self._write(name, replicas, self.settings.dry_run)

    def check_scale(self, name: str) -> None:
        """Checks that a deployment may be scaled, and changes nothing.

        Raises:
            InputError: the deployment is not listed.
            ClusterError: it may not.
        """
        self._write(name, None, dry_run=True)

    def pod_metrics(self) -> object:
        """What the metrics API says of the pods of the namespace."""
        request = Request("list", "pods", "metrics.k8s.io", self._namespace)
        return self._ask(
            request,
            lambda: self._custom.list_namespaced_custom_object(
                "metrics.k8s.io", "v1beta1", self.settings.namespace, "pods", _request_timeout=self._limit
            ),
        )

    def node_metrics(self) -> object:
        """What the metrics API says of the nodes."""
        request = Request("list", "nodes", "metrics.k8s.io", "the cluster")
        return self._ask(
            request,
            lambda: self._custom.list_cluster_custom_object(
                "metrics.k8s.io", "v1beta1", "nodes", _request_timeout=self._limit
            ),
        )

    def _write(self, name: str, replicas: int | None, dry_run: bool) -> None:
        """Replaces the scale that was read, so that a change in between is a conflict and not lost."""
        namespace = self.settings.namespace
        if name not in self.settings.deployments:
            raise InputError(
                f"deployment {name} in {self._namespace} is not listed and stays as it is; "
                "add it to deployments to let it be scaled"
            )
        read = Request("get", "deployments/scale", "apps", self._namespace, name)
        update = Request("update", "deployments/scale", "apps", self._namespace, name)
        dry = "All" if dry_run else None
        for attempt in range(self.settings.retries + 1):
            scale = self._ask(
                read,
                lambda: self._apps.read_namespaced_deployment_scale(
                    name, namespace, _request_timeout=self._limit
                ),
            )
            if replicas is not None:
                if _replicas(scale) == replicas:
                    return
                scale.spec = client.V1ScaleSpec(replicas=replicas)
            replace = partial(self._apps.replace_namespaced_deployment_scale, name, namespace, scale)
            try:
                self._ask(update, lambda: replace(dry_run=dry, _request_timeout=self._limit))  # noqa: B023
            except ConflictError:
                if attempt == self.settings.retries:
                    raise
                self._sleep(pause_before(attempt))
            else:
                return

    def _pages(self, request: Request, ask: Callable[[str | None], Any]) -> list[Any]:
        """A list that the server gives in pages; ``ask`` gets the mark where the next one begins."""
        items: list[Any] = []
        start: str | None = None
        while True:
            page = self._ask(request, partial(ask, start))
            items += page.items
            start = page.metadata.var_continue or None
            if start is None:
                return items

    def _ask(self, request: Request, ask: Callable[[], T]) -> T:
        """Asks, and again when the failure may pass."""
        attempt = 0
        while True:
            try:
                return ask()
            except (client.ApiException, HTTPError) as error:
                if attempt == self.settings.retries or not is_passing(error):
                    raise explain(error, request, self.server, self._config) from error
            except (ValueError, TypeError, AttributeError) as error:
                raise ClusterError(
                    f"{self.server} does not answer as Kubernetes does (to {request}); "
                    f"check that {self._config} names an API server"
                ) from error
            self._sleep(pause_before(attempt))
            attempt += 1


def _replicas(scale: client.V1Scale) -> int:
    """The replicas asked for; the server leaves out a 0."""
    return (scale.spec and scale.spec.replicas) or 0


def _load(settings: ClusterSettings, configuration: client.Configuration) -> str:
    """Fills in how the cluster is reached; returns where that is from, in words."""
    named = str(settings.kubeconfig or os.environ.get("KUBECONFIG", ""))
    if not named and not Path("~/.kube/config").expanduser().exists():
        try:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            raise InputError(
                "no cluster: neither KUBECONFIG nor ~/.kube/config names one, and this runs in none; "
                "set KUBECONFIG or kubeconfig"
            ) from error
        return "the pod's service account"
    files = named or "~/.kube/config"
    try:
        load_kube_config(  # type: ignore[no-untyped-call]
            config_file=files,
            context=settings.context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (ConfigException, YAMLError, OSError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"cannot use the kubeconfig {files}: {reason}; mend it or name another") from error
    return f"kubeconfig {files}"
