"""What stands before the routes: who may pass, how much, from where. Plain ASGI, which holds no stream up."""

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN_PATHS = ("/healthz", "/docs", "/openapi.json", "/")
"""Paths that need no token: they tell nothing of any job."""

OPEN_FOLDERS = ("/dashboard/", "/docs-files/")

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)

POLICY = b"default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'"
DOCS_POLICY = POLICY.replace(b"'self'", b"'self' 'unsafe-inline'", 1)
"""The page of the API's documentation starts itself by a script within it."""

ALWAYS_ASKED = (b"cache-control", b"no-cache")
"""Browsers ask whether a file of the dashboard changed, so that after an upgrade old and new never mix."""

SAFE = ("GET", "HEAD", "OPTIONS")


class BearerToken:
    """Lets requests pass that carry the token.

    Args:
        app: what comes next.
        token: the secret.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "lifespan" or _is_open(scope["path"]) or self._carried(scope):
            await self._app(scope, receive, send)
            return
        answer = JSONResponse(
            {"detail": "give the service's token: Authorization: Bearer TOKEN"},
            status_code=401,
            headers={"WWW-Authenticate": "Bearer"},
        )
        await answer(scope, receive, send)

    def _carried(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get("authorization", "")
        scheme, _, secret = given.partition(" ")
        # Compared as bytes and in constant time, so that the time taken tells nothing of the token.
        alike = hmac.compare_digest(secret.strip().encode(), self._token)
        return alike and scheme.lower() == "bearer"


class KnownHost:
    """Refuses requests that call the service by a name which is not its own.

    A web page whose own name was made to lead here cannot reach a service without a token that way.

    Args:
        app: what comes next.
        names: the service's; ``*`` stands for all, ``*.example.org`` for all of a domain.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = {name.lower().strip("[]") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] == "lifespan" or self._knows(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
            return
        detail = "the service is not called by this name; see --allowed-hosts of innerloop serve"
        await JSONResponse({"detail": detail}, status_code=400)(scope, receive, send)

    def _knows(self, called: str) -> bool:
        if "*" in self._names:
            return True
        name = _host(f"//{called}")
        domains = (entry[1:] for entry in self._names if entry.startswith("*."))
        return name in self._names or any(name.endswith(domain) for domain in domains)


class SameSite:
    """Refuses what a web page of another site asks a browser to change here.

    Args:
        app: what comes next.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        changes = scope["type"] == "http" and scope["method"] not in SAFE
        if changes and _is_foreign(Headers(scope=scope)):
            answer = JSONResponse({"detail": "pages of other sites change nothing here"}, status_code=403)
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


class LimitedBody:
    """Refuses bodies above a size, whether they announce it or not.

    Args:
        app: what comes next.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and (len(announced) > 18 or int(announced) > self._most):
            await self._refuse(scope, receive, send)
            return
        body, more = bytearray(), scope["method"] not in SAFE
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client is gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._most:
                await self._refuse(scope, receive, send)
                return
        given = scope["method"] in SAFE

        async def whole() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, whole, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        detail = f"the body is larger than {self._most} bytes"
        await JSONResponse({"detail": detail}, status_code=413)(scope, receive, send)


class SafeHeaders:
    """Adds to every answer what keeps browsers from misusing it.

    Args:
        app: what comes next.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = DOCS_POLICY if scope["path"] == "/docs" else POLICY
                added = [*HEADERS, (b"content-security-policy", policy)]
                if scope["path"] == "/" or scope["path"].startswith("/dashboard/"):
                    added.append(ALWAYS_ASKED)
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        await self._app(scope, receive, with_headers)


def _is_foreign(headers: Headers) -> bool:
    """Whether a browser sends the request for a page of another site; other clients say nothing of it."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("none", "same-origin")
    # Browsers that do not say that name the page's origin.
    origin = headers.get("origin")
    return origin is not None and _host(origin) != _host(f"//{headers.get('host', '')}")


def _host(address: str) -> str:
    """The host of an address, without its port; empty where it has none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)
