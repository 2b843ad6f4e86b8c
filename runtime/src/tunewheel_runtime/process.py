"""Starts a service process with the settings from the environment."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from pydantic import ValidationError
from tunewheel_contracts.errors import TunewheelError

from tunewheel_runtime.descriptors import raise_limit
from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_runtime.service import LoopFactory, Service
from tunewheel_runtime.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def run_service(
    name: str,
    read_settings: Callable[[], S],
    make_app: Callable[[S], Service],
    *,
    loop_factory: LoopFactory | None = None,
) -> NoReturn:
    """Run the service ``name`` until it is stopped; see ``Service.run`` for the exit codes.

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
    service.run(loop_factory=loop_factory)


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
