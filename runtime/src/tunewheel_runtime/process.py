"""Starts a service process with the settings from the environment."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable, Generator
from typing import NoReturn, TypeVar

import structlog
from pydantic import ValidationError
from tunewheel_contracts.errors import TunewheelError

from tunewheel_runtime.descriptors import raise_limit
from tunewheel_runtime.identity.access import NoIdentity
from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_runtime.lifecycle import Lifecycle
from tunewheel_runtime.logs import configure_logs
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.tls import InvalidTls

log = structlog.get_logger(__name__)
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
S = TypeVar("S", bound=ServiceSettings)


def run_service(
    name: str,
    read_settings: Callable[[], S],
    make_app: Callable[[S], Service],
    *,
    loop_factory: LoopFactory | None = None,
) -> NoReturn:
    """Run the service ``name`` until it is stopped; see ``run`` for the exit codes.

    For invalid settings the exit code is 2, and each is named in a line on standard error. Values are not
    shown, because they may be secrets.
    """
    try:
        settings = read_settings()
    except ValidationError as error:
        _refuse(name, *(_complaint(*found) for found in wrong_settings(error)))
    raise_limit()
    try:
        service = make_app(settings)
    except InvalidSetting as error:
        _refuse(name, _complaint(error.field, error.reason))
    except TunewheelError as error:
        _refuse(name, str(error))
    run(service, loop_factory=loop_factory)


def run(service: Service, *, loop_factory: LoopFactory | None = None) -> NoReturn:
    """Run the process of ``service``. The exit code is 0 after a clean stop, 1 after a failure, 2 if it must
    not start.

    ``loop_factory`` None: asyncio's own event loop.
    """
    configure_logs(
        service=service.name,
        level=service.settings.log_level,
        json=service.settings.log_json,
        exported=service.telemetry.logger_provider,
    )
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_serve_until_signalled(service))
    except (NoIdentity, InvalidTls) as error:
        log.error("cannot_start", reason=str(error))
        sys.exit(2)
    sys.exit(1 if service.failure else 0)


async def _serve_until_signalled(service: Service) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, service.stop)
    await Lifecycle(service, while_reading=uncollected).serve()


@contextlib.contextmanager
def uncollected() -> Generator[None]:
    """Collect no garbage meanwhile, and never look at what was made by then again. Only for a process that is
    the service's alone: the garbage of others is not its affair.

    What is read of the log stays as long as the process. Full collections would look at all of it again and
    again: that took two fifths of the time in which the console read a log, and stopped it for seconds later.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def wrong_settings(error: ValidationError) -> list[tuple[str, str]]:
    """Return the invalid fields, each with the reason."""
    found: list[tuple[str, str]] = []
    for one in error.errors(include_url=False, include_input=False):
        field = one.get("ctx", {}).get("field") or (one["loc"] or ("",))[0]
        found.append((str(field), one["msg"].removeprefix("Value error, ")))
    return found


def _complaint(field: str, reason: str) -> str:
    return f"TUNEWHEEL_{field.upper()}: {reason}"


def _refuse(name: str, *complaints: str) -> NoReturn:
    for complaint in complaints:
        print(f"tunewheel-{name}: {complaint}", file=sys.stderr)
    sys.exit(2)
