"""``tunewheel-engine``: one base model, many adapters, one running batch, over HTTP."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tunewheel_basemodel.errors import ModelFilesError
from tunewheel_runtime.admission import Admission, OpenToNetwork, require_authentication

from tunewheel_engine import api_adapters, api_openai, api_tgi
from tunewheel_engine.engine import Engine, load_engine
from tunewheel_engine.errors import EngineFailed, Overloaded, Refused
from tunewheel_engine.settings import Settings


def make_app(engine: Engine) -> Starlette:
    """The HTTP application around a loaded engine; its lifespan runs the generating thread."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        engine.scheduler.start(asyncio.get_running_loop())
        try:
            yield
        finally:
            await asyncio.to_thread(engine.scheduler.stop)

    async def health(request: Request) -> Response:
        return Response(status_code=200 if engine.scheduler.healthy else 503)

    async def metrics(request: Request) -> Response:
        return Response(engine.metrics.text(), media_type="text/plain; version=0.0.4")

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused | EngineFailed)
        tgi = request.url.path in api_tgi.PATHS
        status = api_tgi.status(error) if tgi else error.status
        engine.metrics.refused(status)
        headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Overloaded) else None
        body = api_tgi.error_body(error) if tgi else api_openai.error_body(error)
        return JSONResponse(body, status_code=status, headers=headers)

    return Starlette(
        routes=[
            *api_openai.routes(engine),
            *api_adapters.routes(engine),
            *api_tgi.routes(engine),
            Route("/health", health, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
        ],
        lifespan=lifespan,
        middleware=[Middleware(Admission, engine.settings)],
        exception_handlers={Refused: refuse, EngineFailed: refuse, HTTPException: _no_such_route},
    )


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refused(f"{request.method} {request.url.path}: {error.detail}", code="no_such_route")
    return JSONResponse(api_openai.error_body(refusal), status_code=error.status_code)


def read_settings(arguments: list[str]) -> Settings:
    """Settings from the environment, with the command's options over them."""
    parser = argparse.ArgumentParser(prog="tunewheel-engine", description=__doc__)
    parser.add_argument("--base-model", help="Hugging Face id or directory")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument(
        "--adapter-root",
        type=Path,
        action="append",
        dest="adapter_roots",
        help="adapters are loaded from below it only; may be given several times",
    )
    parser.add_argument("--host", dest="http_host")
    parser.add_argument("--port", type=int, dest="http_port")
    parser.add_argument("--max-batch", type=int)
    parser.add_argument("--max-queue", type=int)
    parser.add_argument("--max-context", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--log-level")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return Settings(**given)


def configure_logs(settings: Settings) -> None:
    """Structured logs on standard error."""
    renderer: Any = (
        structlog.processors.JSONRenderer() if settings.log_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.log_level]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def serve(settings: Settings) -> int:
    """Load and serve until told to stop; the exit status is 1 when generation broke."""
    log = structlog.get_logger(__name__)
    server: uvicorn.Server | None = None
    failed = False

    def stop_after_failure() -> None:
        nonlocal failed
        failed = True
        if server is not None:
            server.should_exit = True

    try:
        require_authentication(settings, service="the engine")
        engine = load_engine(settings, on_failure=stop_after_failure)
    except OpenToNetwork as error:
        log.error("cannot_start", reason=str(error))
        return 2
    except ModelFilesError as error:
        log.error("cannot_start", field=error.field, reason=error.reason)
        return 2
    config = uvicorn.Config(
        make_app(engine),
        host=settings.http_host,
        port=settings.http_port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    log.info("serving", base=engine.base.name, revision=engine.base.revision, port=settings.http_port)
    server.run()
    return int(failed)


def main() -> None:
    # Read by OpenMP when torch is first imported: threads that spin between layers would take the cores from
    # whoever shares the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    settings = read_settings(sys.argv[1:])
    configure_logs(settings)
    sys.exit(serve(settings))


if __name__ == "__main__":
    main()
