"""What can go wrong between here and a cluster, each as one line: what, where, and how to mend it."""

import json
from dataclasses import dataclass

from kubernetes.client import ApiException
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as RequestTimeout

from innerloop.core.errors import InnerloopError


class ClusterError(InnerloopError):
    """A real cluster could not be reached, did not allow something, or did not do it."""


class DeploymentGoneError(ClusterError):
    """A deployment is not there."""


class ConflictError(ClusterError):
    """What should be changed was changed by something else in between."""


@dataclass(frozen=True)
class Request:
    """One question to the API server, as its access control names it.

    Args:
        verb: of RBAC, for example ``list``.
        resource: of RBAC, with its subresource.
        group: of its API; empty for the core.
        place: in words, for example ``namespace shop``.
        deployment: its name, where the request is about one.
    """

    verb: str
    resource: str
    group: str
    place: str
    deployment: str = ""

    def __str__(self) -> str:
        """In words, for messages."""
        return f"{self.verb} {self.resource} {self.deployment}".rstrip() + f" in {self.place}"


def pause_before(attempt: int) -> float:
    """Seconds to wait after the failed attempt of this number, from 0, before the request is repeated."""
    return min(0.1 * 2.0**attempt, 5.0)


def is_passing(error: ApiException | HTTPError) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, ApiException):
        return error.status == 429 or (error.status or 0) >= 500
    return True


def explain(error: ApiException | HTTPError, request: Request, server: str, config: str) -> ClusterError:
    """The error to show.

    Args:
        error: of the client or of its connection.
        request: what was asked.
        server: the API server's address.
        config: where that address is from, in words.
    """
    if isinstance(error, ApiException):
        return _refusal(error, request, server, config)
    if isinstance(error, RequestTimeout) and not isinstance(error, NewConnectionError):
        return ClusterError(
            f"no answer from {server} in time (to {request}); check that it can be reached from here "
            f"({config}), or raise timeout"
        )
    reason = str(error).split(": ", 1)[-1]
    return ClusterError(
        f"cannot reach {server} (to {request}): {reason}; check that the cluster is up and that {config} "
        "names the right one"
    )


def _refusal(error: ApiException, request: Request, server: str, config: str) -> ClusterError:
    said = _message(error)
    match error.status:
        case 0:
            return ClusterError(
                f"no secure connection to {server}: {said}; check the certificates that {config} names"
            )
        case 401:
            return ClusterError(
                f"{server} does not know who asks (to {request}); renew the credentials that {config} names"
            )
        case 403:
            return ClusterError(
                f"{server} forbids to {request}: {said}; grant verb {request.verb} on resource "
                f'{request.resource} of API group "{request.group}" in a role of its user'
            )
        case 404 if request.deployment:
            return DeploymentGoneError(
                f"there is no deployment {request.deployment} in {request.place} of {server}; "
                "check its name, or create it"
            )
        case 404:
            return ClusterError(
                f"{server} has no {request.resource} in {request.place}; check that it serves API group "
                f'"{request.group}"'
            )
        case 409:
            return ConflictError(
                f"something else keeps changing deployment {request.deployment} in {request.place} of "
                f"{server}; stop the other scaler, or raise retries"
            )
        case status if status == 429 or (status or 0) >= 500:
            return ClusterError(
                f"{server} is in trouble (to {request}): {status} {said}; try again when it has recovered"
            )
        case status:
            return ClusterError(f"{server} refuses to {request}: {status} {said}; change what it objects to")


def _message(error: ApiException) -> str:
    """What the server said in words, on one line."""
    try:
        said = json.loads(error.body or "")["message"]
    except (ValueError, KeyError, TypeError):
        said = error.body or error.reason or "no reason given"
    return " ".join(str(said).split())[:300]
