"""Exit codes, and the output of errors on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

from tunewheel_contracts.errors import TransientError, TunewheelError

P = ParamSpec("P")
T = TypeVar("T")


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    """The error is on standard error."""
    USAGE = 2
    """An option is wrong; nothing was done."""
    REFUSED = 3
    """Some of the input was refused, the rest was published."""
    DIFFERENT = 4
    """Topics are missing or differ from their specs."""
    UNREACHABLE = 5
    """Kafka or a service does not answer."""
    UNFINISHED = 6
    """An erasure, a command on a model or an evaluation was not carried out in time."""
    NOT_ALLOWED = 7
    """A service does not know the key, or the key lacks a role, or Kafka refuses a request."""


EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong option, 3 part of the input was refused, 4 topics differ from "
    "their specs, 5 Kafka or a service does not answer, 6 an erasure, a command on a model or an evaluation "
    "was not carried out in time, 7 the API key is unknown or lacks a role, or Kafka does not allow it."
)


def reporting(command: Callable[P, T], *, as_json: bool = False) -> Callable[P, T]:
    """Turn the errors that Tunewheel raises on purpose into one line and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except TunewheelError as error:
            leave(error, as_json=as_json)
        except KeyboardInterrupt:
            sys.exit(130)

    return run


def leave(error: TunewheelError, *, as_json: bool = False) -> NoReturn:
    """Print ``error`` and exit with its code."""
    from tunewheel_local.connection import InvalidOption
    from tunewheel_local.endpoint import NotAllowed
    from tunewheel_local.launch import TopicsDiffer
    from tunewheel_local.roster import UnknownService
    from tunewheel_runtime.kafka_refusals import NotAllowed as KafkaNotAllowed

    from tunewheel_cli.lag import TopicsMissing

    code = Exit.FAILED
    if isinstance(error, TransientError):
        code = Exit.UNREACHABLE
    elif isinstance(error, NotAllowed | KafkaNotAllowed):
        code = Exit.NOT_ALLOWED
    elif isinstance(error, TopicsDiffer | TopicsMissing):
        code = Exit.DIFFERENT
    elif isinstance(error, InvalidOption | UnknownService):
        code = Exit.USAGE
    if as_json:
        print_json(
            {"error": str(error), "kind": type(error).__name__, "field": getattr(error, "field", None)}
        )
    else:
        print(f"tunewheel: {error}", file=sys.stderr)
    sys.exit(code)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()
