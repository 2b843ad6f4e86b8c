"""``tunewheel-engine``: serves a base model, its adapters and fully fine-tuned models over HTTP."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tunewheel_basemodel.errors import ModelFilesError
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.admission import Admission
from tunewheel_runtime.base_mirror import fetch_base
from tunewheel_runtime.doors import Door
from tunewheel_runtime.health import health_routes
from tunewheel_runtime.identity.access import Access, NoIdentity
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_runtime.logs import configure_logs
from tunewheel_runtime.metrics import gauge
from tunewheel_runtime.prometheus import CONTENT_TYPE
from tunewheel_runtime.request_ids import HttpSpans
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.telemetry import Telemetry, make_telemetry
from tunewheel_runtime.tls import Certificate, InvalidTls, certificate_of, tell_of_clear_text

from tunewheel_engine import api_adapters, api_openai, api_tgi, openai_answers
from tunewheel_engine.engine import Engine, load_engine
from tunewheel_engine.errors import EngineError, Overloaded, Refused
from tunewheel_engine.settings import Settings


def make_app(engine: Engine, access: Access) -> Starlette:
    """Return the HTTP application of a loaded engine. Its lifespan runs the thread that generates. If the
    engine's telemetry exports traces, each request is a span in its caller's trace."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.scheduler.start(asyncio.get_running_loop())
        try:
            yield
        finally:
            await asyncio.to_thread(engine.scheduler.stop)

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, EngineError)
        tgi = request.url.path in api_tgi.PATHS
        status = api_tgi.status(error) if tgi else error.status
        engine.metrics.refused(status)
        headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Overloaded) else None
        body = api_tgi.error_body(error) if tgi else openai_answers.error_body(error)
        return JSONResponse(body, status_code=status, headers=headers)

    routes = [*api_openai.routes(engine), *api_adapters.routes(engine), *api_tgi.routes(engine)]
    guard(routes, access)
    telemetry = engine.telemetry
    spans = [Middleware(HttpSpans, telemetry.tracer)] if telemetry.traces else []
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[*spans, Middleware(Admission, engine.settings)],
        exception_handlers={EngineError: refuse, HTTPException: _no_such_route},
    )


def make_health_app(engine: Engine) -> Starlette:
    """Return the application for health and metrics, which needs no key and has its own port."""

    meter, scheduler = engine.telemetry.meter, engine.scheduler
    gauge(meter, "tunewheel.ready", "1 while /health/ready answers 200", lambda: int(scheduler.healthy))

    async def health(request: Request) -> Response:
        return Response(status_code=200 if engine.scheduler.healthy else 503)

    async def metrics(request: Request) -> Response:
        return Response(engine.telemetry.metrics_text(), media_type=CONTENT_TYPE)

    routes = [
        Route("/health", health, methods=["GET"]),  # the same path as vLLM's
        Route("/metrics", metrics, methods=["GET"]),
        *health_routes(lambda: {"ready": engine.scheduler.healthy}),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Admission, engine.settings)])


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refused(f"{request.method} {request.url.path}: {error.detail}", code="no_such_route")
    return JSONResponse(openai_answers.error_body(refusal), status_code=error.status_code)


def read_settings(arguments: list[str]) -> Settings:
    """Return the settings from the environment; command line options go before them."""
    parser = argparse.ArgumentParser(prog="tunewheel-engine", description=__doc__)
    parser.add_argument("--base-model", help="Hugging Face id or directory")
    parser.add_argument("--base-revision", help="commit of the hub, or sha256:… of the base model's files")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument(
        "--adapter-root",
        type=Path,
        action="append",
        dest="adapter_roots",
        help="directory from which adapters may be loaded; may be given several times",
    )
    parser.add_argument("--host", dest="http_host")
    parser.add_argument("--port", type=int, dest="http_port")
    parser.add_argument("--health-port", type=int)
    parser.add_argument("--max-batch", type=int)
    parser.add_argument("--max-queue", type=int)
    parser.add_argument("--max-context", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--log-level")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return Settings(**given)


def serve(settings: Settings) -> int:
    """Load the model and serve until SIGINT or SIGTERM. Return the exit status: 0, 1 after generation failed,
    2 where the engine cannot start."""
    telemetry = make_telemetry("engine", settings.otlp_endpoint)
    configure_logs(
        service="engine", level=settings.log_level, json=settings.log_json, exported=telemetry.logger_provider
    )
    try:
        return _served(settings, telemetry)
    finally:
        telemetry.shutdown()


def _served(settings: Settings, telemetry: Telemetry) -> int:
    log = structlog.get_logger(__name__)
    try:
        access = Access(settings, warn=_warn)
        access.require_identity("the engine", host=settings.http_host)
        certificate = certificate_of(settings, warn=_warn)
        tell_of_clear_text(settings)
        return asyncio.run(_serve(settings, access, certificate, telemetry))
    except (NoIdentity, InvalidTls, TransientError) as error:
        log.error("cannot_start", reason=str(error))
    except (InvalidSetting, ModelFilesError) as error:
        log.error("cannot_start", field=error.field, reason=error.reason)
    return 2


def _warn(name: str, text: str | None) -> None:
    if text is not None:
        structlog.get_logger(__name__).error("warning", name=name, text=text)


async def _serve(
    settings: Settings, access: Access, certificate: Certificate | None, telemetry: Telemetry
) -> int:
    closing, failed = asyncio.Event(), False
    loop = asyncio.get_running_loop()

    def stop_after_failure() -> None:
        nonlocal failed
        failed = True
        loop.call_soon_threadsafe(closing.set)

    if settings.store_url:
        store, base = ObjectStore(settings.store_url, telemetry.meter), settings.base_model
        revision = await fetch_base(store, base, settings.base_revision, settings.cache_dir)
        settings = settings.model_copy(update={"base_revision": revision})
    engine = load_engine(settings, on_failure=stop_after_failure, telemetry=telemetry)
    app = make_app(engine, access)
    health_host = settings.health_host or settings.http_host
    doors = [
        Door(served, host=host, port=port, patience=10, certificate=certificate)
        for served, host, port in (
            (app, settings.http_host, settings.http_port),
            (make_health_app(engine), health_host, settings.health_port),
        )
    ]
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, closing.set)
    access.begin()
    async with app.router.lifespan_context(app):
        log = structlog.get_logger(__name__)
        base = engine.base
        log.info("serving", base=base.name, revision=base.revision, port=doors[0].port, health=doors[1].port)
        await asyncio.gather(*(door.serve(closing) for door in doors))
    return int(failed)


def main() -> None:
    # OpenMP reads this when torch is first imported. Without it, threads spin between layers and take the
    # cores from other processes.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(serve(read_settings(sys.argv[1:])))


if __name__ == "__main__":
    main()
