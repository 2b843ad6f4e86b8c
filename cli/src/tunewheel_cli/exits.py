"""Exit codes, and the output of errors on the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, NoReturn

from tunewheel_contracts.errors import TunewheelError

from tunewheel_cli.texts import printable

MOST_FAULTS = 100
"""How many of a request's faults are printed on the terminal."""


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


_CODES = {
    "TransientError": Exit.UNREACHABLE,
    "NotAllowed": Exit.NOT_ALLOWED,
    "TopicsDiffer": Exit.DIFFERENT,
    "TopicsMissing": Exit.DIFFERENT,
    "InvalidOption": Exit.USAGE,
    "InvalidCacheDir": Exit.USAGE,
    "NoAddress": Exit.USAGE,
    "InvalidContexts": Exit.USAGE,
    "UnknownService": Exit.USAGE,
    "Unfinished": Exit.UNFINISHED,
}
"""The exit code by the name of an error's class or of one that it derives from: importing them all would cost
more than most commands. Every other error is ``FAILED``."""


@contextmanager
def reporting(*, as_json: bool = False) -> Generator[None]:
    """Turn the errors that Tunewheel raises on purpose into one line and an exit code."""
    try:
        yield
    except TunewheelError as error:
        leave(error, as_json=as_json)
    except KeyboardInterrupt:
        sys.exit(130)


def leave(error: TunewheelError, *, as_json: bool = False) -> NoReturn:
    """Print ``error``, and all faults of a request that has several; exit with the error's code."""
    codes = (_CODES.get(kind.__name__) for kind in type(error).__mro__)
    param = getattr(error, "param", None) or getattr(error, "field", None)
    faults = getattr(error, "faults", ())
    if as_json:
        told = [{"field": name, "reason": reason} for name, reason in faults]
        print_json(
            {"error": str(error), "kind": type(error).__name__, "field": param}
            | ({"faults": told} if told else {})
        )
    else:
        print(printable(f"tunewheel: {error}"), file=sys.stderr)
        for name, reason in faults[1 : MOST_FAULTS + 1]:  # the message tells the first one
            print(printable(f"  {name}: {reason}"), file=sys.stderr)
        if len(faults) > MOST_FAULTS + 1:
            print(f"  and {len(faults) - MOST_FAULTS - 1:,} more", file=sys.stderr)
    sys.exit(next((code for code in codes if code is not None), Exit.FAILED))


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    json.dump(value, sys.stdout, ensure_ascii=False, default=str)
    sys.stdout.write("\n")
    sys.stdout.flush()


def show(value: Any, text: str | Callable[[], object], *, as_json: bool) -> None:
    """Print a command's result: ``value`` as JSON where --json is given, else ``text``, which may be a
    function that prints."""
    if as_json:
        print_json(plain(value))
    elif isinstance(text, str):
        print(printable(text))
    else:
        text()


def plain(value: Any) -> Any:
    """Return an answer of the API as JSON's types."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value
