"""The process that reads documents for its parent: ``python -m tunewheel_ingest.parsing.worker``.

For each ``Order`` (a line of JSON) on stdin it writes one ``Outcome`` (a line of JSON) to stdout. Each
document is read in a child of its own, which is forked after the libraries are loaded. So the limits apply to
each document alone, and a crash affects no other document. When stdin closes, the parent is gone, and the
process ends.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Literal

from tunewheel_contracts.fields import Frozen

from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable, refusing_length
from tunewheel_ingest.parsing.formats import known_parsers, parse_file, parse_mails
from tunewheel_ingest.parsing.limits import Limits


class _End(IntEnum):
    """The exit status by which the child reports the outcome."""

    READ = 0
    REFUSED = 10
    NO_MEMORY = 11
    TOO_LONG = 12
    BROKEN = 13


class Order(Frozen):
    """Read ``source`` as ``media_type`` and write the ``ParsedDocument``, or the reason, to ``target``."""

    source: str
    target: str
    media_type: str
    name: str
    limits: Limits
    is_mail: bool = False
    """Whether ``source`` is a JSON list of HTML texts, of which each becomes a section."""


class Outcome(Frozen):
    status: Literal["read", "refused"]
    reason: str = ""


def main() -> None:
    """Serve orders until stdin closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; stdout is for outcomes only
    # libraries may log thousands of warnings about a damaged document; the outcome holds what matters
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    while line := sys.stdin.readline():
        order = Order.model_validate_json(line)
        for name in known_parsers()[order.media_type].libraries:
            importlib.import_module(name)
        answers.write(
            outcome_of(order, parse_mails if order.is_mail else parse_file).model_dump_json() + "\n"
        )
        answers.flush()


def outcome_of(order: Order, parse: Callable[[Path, str, str], ParsedDocument]) -> Outcome:
    """Run ``parse`` in a child process under the order's limits and return the outcome."""
    child = os.fork()
    if child == 0:
        status = _End.BROKEN
        try:
            status = _read(order, parse)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    if os.WIFSIGNALED(ended):
        number = os.WTERMSIG(ended)
        known = order.limits.exceeded(number)
        return Outcome(
            status="refused", reason=known or f"cannot be read: its reader was ended by signal {number}"
        )
    match os.WEXITSTATUS(ended):
        case _End.READ:
            return Outcome(status="read")
        case _End.REFUSED:
            return Outcome(status="refused", reason=Path(order.target).read_text("utf-8"))
        case _End.NO_MEMORY:
            return Outcome(status="refused", reason=order.limits.too_much_memory)
        case _End.TOO_LONG:
            return Outcome(status="refused", reason=order.limits.too_much_text)
        case other:
            return Outcome(status="refused", reason=f"cannot be read: its reader failed ({other})")


def _read(order: Order, parse: Callable[[Path, str, str], ParsedDocument]) -> _End:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # the child must not read the parent's orders
    order.limits.apply()
    target = Path(order.target)
    try:
        with refusing_length():
            document = parse(Path(order.source), order.media_type, order.name)
        target.write_bytes(document.model_dump_json().encode())
    except Unreadable as error:
        target.write_text(str(error), "utf-8", errors="replace")
        return _End.REFUSED
    except MemoryError:
        return _End.NO_MEMORY
    except OSError as error:
        if error.errno == errno.EFBIG:  # a write exceeded RLIMIT_FSIZE
            return _End.TOO_LONG
        raise
    return _End.READ


if __name__ == "__main__":
    main()
