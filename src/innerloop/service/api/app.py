"""The application: all routes, and what stands before them."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline

from innerloop.service.api.events import EventStream
from innerloop.service.api.guard import BearerToken, KnownHost, LimitedBody, SafeHeaders, SameSite
from innerloop.service.api.jobs import Jobs
from innerloop.service.api.routes import ALWAYS, routers
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.api.telemetry import Counted, Telemetry
from innerloop.service.api.views import HealthView
from innerloop.service.jobs.store import JobStore, StoreUnavailable
from innerloop.service.work.folder import JobFolders

logger = logging.getLogger(__name__)

DASHBOARD = Path(str(resources.files("innerloop.service"))) / "dashboard"


def create_app(store: JobStore, folder: Path, settings: ServiceSettings) -> FastAPI:
    """The service on a store.

    Args:
        store: of jobs; it stays open.
        folder: of the jobs' own folders.
        settings: how it is reached.

    Returns:
        The application; its ``state.stream`` must be closed when the service is to stop, since a server waits
        for the ends of all answers first.
    """
    stream, telemetry = EventStream(store, settings.poll), Telemetry(store)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.openapi()  # takes half a second, in which otherwise all requests would stand still
        yield
        await stream.close()

    app = FastAPIOffline(
        title="innerloop",
        version=version("innerloop"),
        summary="Models that adapt to a new task from a handful of examples: jobs by HTTP",
        lifespan=lifespan,
        redoc_url=None,
        static_url="/docs-files",
    )
    app.state.stream = stream
    # Only documented here: the guard below is what asks for the token.
    secret = [] if settings.token is None else [Depends(HTTPBearer(auto_error=False))]
    for router in routers(Jobs(store, JobFolders(folder), stream)):
        app.include_router(router, dependencies=secret)
    _add_pages(app, store, telemetry, secret)
    _add_errors(app)
    # The last added is the first that a request meets.
    app.add_middleware(LimitedBody, most=settings.most_bytes)
    app.add_middleware(SameSite)
    if settings.token is not None:
        app.add_middleware(BearerToken, token=settings.token)
    app.add_middleware(KnownHost, names=settings.hosts)
    app.add_middleware(SafeHeaders)
    app.add_middleware(Counted, telemetry=telemetry)
    return app


def _add_pages(app: FastAPI, store: JobStore, telemetry: Telemetry, secret: Sequence[Any]) -> None:
    # Whoever watches over services asks by HEAD.
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["Service"], responses=ALWAYS, summary="Whether the service can do its work")
    def health() -> HealthView:
        store.counts()
        return HealthView(status="ok", version=version("innerloop"), store="reached")

    @app.get(
        "/metrics",
        tags=["Service"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **ALWAYS},
        dependencies=secret,
        summary="Figures for Prometheus",
    )
    def metrics() -> Response:
        return Response(telemetry.exposition(), media_type="text/plain; version=0.0.4")

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    def dashboard() -> FileResponse:
        return FileResponse(DASHBOARD / "index.html")

    app.mount("/dashboard", StaticFiles(directory=DASHBOARD), name="dashboard")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not sent back: it may be large, secret, or nothing that JSON can hold.
        detail = [
            {"loc": _shortened(entry["loc"]), "msg": entry["msg"], "type": entry["type"]}
            for entry in error.errors()[:MOST_FIELDS]
        ]
        return JSONResponse({"detail": detail}, status_code=422)

    @app.exception_handler(405)
    def no_such_method(request: Request, refusal: HTTPException) -> JSONResponse:
        # Of several routes of one path, the router names the methods of the first alone.
        path = getattr(request.scope.get("route"), "path", "")
        methods = ", ".join(method.upper() for method in app.openapi()["paths"].get(path, {}))
        headers = {"Allow": methods} if methods else refusal.headers
        return JSONResponse({"detail": refusal.detail}, status_code=405, headers=headers)

    @app.exception_handler(StoreUnavailable)
    def unavailable(_: Request, failure: StoreUnavailable) -> JSONResponse:
        # Where the database is, is nothing for those who may ask; some ask without a token.
        logger.warning("a request is refused: %s", failure)
        detail = "the database does not answer; try again"
        return JSONResponse({"detail": detail}, status_code=503, headers={"Retry-After": "1"})


MOST_FIELDS = 100
"""Of a body, that an answer names as wrong."""

LONGEST_NAME = 100


def _shortened(place: Sequence[str | int]) -> list[str | int]:
    """The place of a field, whose names may be the client's own and of any length."""
    return [part if isinstance(part, int) else part[:LONGEST_NAME] for part in place]
