"""How the service is reached and what it accepts."""

import re
from dataclasses import dataclass, field
from ipaddress import ip_address

from innerloop.core.errors import InputError


@dataclass(frozen=True)
class ServiceSettings:
    """See the module's text.

    Args:
        host: address to listen at.
        port: to listen at.
        token: that every request must carry; none asks for none, and allows loopback alone.
        most_bytes: of a request's body.
        poll: seconds between two looks at a job that somebody watches.
        allowed_hosts: names that requests may call the service by, ``*`` for all. None given, it is all with
            a token, and without one loopback's alone: no web page reaches it by a name of its own.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    most_bytes: int = 4 * 2**20
    poll: float = 0.5
    allowed_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses to be open to others without a token.

        Raises:
            InputError: no token at an address beyond loopback, a token that is too short to be one or that
                no header can carry, or a port that there is not.
        """
        if self.token is None and not is_loopback(self.host):
            raise InputError(
                f"without a token the service listens at loopback only, not at {self.host}; set "
                "INNERLOOP_TOKEN (for example to the output of: openssl rand -hex 32)"
            )
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise InputError(f"the token is too short to be secret; give {SHORTEST_TOKEN} letters or more")
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise InputError(
                "the token holds what a request cannot carry; give ASCII letters, no white space"
            )
        if not 0 <= self.port <= 65535:
            raise InputError(f"there is no port {self.port}; give one from 0 (any that is free) to 65535")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that requests may call the service by."""
        if self.allowed_hosts:
            return self.allowed_hosts
        return ("*",) if self.token is not None else ("localhost", "127.0.0.1", "[::1]", self.host)


SHORTEST_TOKEN = 16


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
