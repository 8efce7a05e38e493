"""The application: all routes, and what stands before them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.middleware.trustedhost import TrustedHostMiddleware

from innerloop.service.api.events import EventStream
from innerloop.service.api.guard import BearerToken, LimitedBody, SafeHeaders, SameSite
from innerloop.service.api.routes import ALWAYS, Jobs, routers
from innerloop.service.api.settings import ServiceSettings
from innerloop.service.api.telemetry import Counted, Telemetry
from innerloop.service.api.views import HealthView
from innerloop.service.jobs.store import JobStore, StoreUnavailable
from innerloop.service.work.folder import JobFolders

DASHBOARD = Path(str(resources.files("innerloop.service"))) / "dashboard"


def create_app(store: JobStore, folder: Path, settings: ServiceSettings) -> FastAPI:
    """The service on a store.

    Args:
        store: of jobs; it stays open.
        folder: of the jobs' own folders.
        settings: how it is reached.
    """
    stream, telemetry = EventStream(store, settings.poll), Telemetry(store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        stream.close()

    app = FastAPIOffline(
        title="innerloop",
        version=version("innerloop"),
        summary="Models that adapt to a new task from a handful of examples: jobs by HTTP",
        lifespan=lifespan,
        redoc_url=None,
        static_url="/docs-files",
    )
    for router in routers(Jobs(store, JobFolders(folder), stream)):
        app.include_router(router)
    _add_pages(app, store, telemetry)
    _add_errors(app)
    # The last added is the first that a request meets.
    app.add_middleware(LimitedBody, most=settings.most_bytes)
    app.add_middleware(SameSite)
    if settings.token is not None:
        app.add_middleware(BearerToken, token=settings.token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts))
    app.add_middleware(SafeHeaders)
    app.add_middleware(Counted, telemetry=telemetry)
    return app


def _add_pages(app: FastAPI, store: JobStore, telemetry: Telemetry) -> None:
    @app.get("/healthz", tags=["Service"], responses=ALWAYS, summary="Whether the service can do its work")
    def health() -> HealthView:
        store.counts()
        return HealthView(status="ok", version=version("innerloop"), store="reached")

    @app.get(
        "/metrics",
        tags=["Service"],
        response_class=PlainTextResponse,
        responses=ALWAYS,
        summary="Figures for Prometheus",
    )
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(telemetry.exposition(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    def dashboard() -> FileResponse:
        return FileResponse(DASHBOARD / "index.html")

    app.mount("/dashboard", StaticFiles(directory=DASHBOARD), name="dashboard")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # What was sent is not sent back: it may be large, secret, or nothing that JSON can hold.
        detail = [{key: entry[key] for key in ("loc", "msg", "type")} for entry in error.errors()]
        return JSONResponse({"detail": detail}, status_code=422)

    @app.exception_handler(StoreUnavailable)
    def unavailable(_: Request, failure: StoreUnavailable) -> JSONResponse:
        return JSONResponse({"detail": str(failure)}, status_code=503, headers={"Retry-After": "1"})
