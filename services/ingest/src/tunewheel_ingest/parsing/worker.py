"""A process that reads documents for its parent: ``python -m tunewheel_ingest.parsing.worker``.

One ``Order`` (a line of JSON) on stdin, one ``Outcome`` (a line of JSON) on stdout. Each document is read
in a child of its own, forked once the libraries are loaded: so each has the whole of its limits, and what
happens to one happens to no other. When stdin closes, the parent is gone and so is this process.
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
from tunewheel_contracts.formats.document import DOCX

from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable
from tunewheel_ingest.parsing.formats import parse_file
from tunewheel_ingest.parsing.limits import Limits

LIBRARIES: dict[str, tuple[str, ...]] = {
    "application/pdf": ("pdfplumber",),
    DOCX: ("mammoth", "bs4", "markdownify", "defusedxml.sax"),
    "text/html": ("bs4", "markdownify"),
    "text/markdown": ("charset_normalizer",),
    "text/plain": ("charset_normalizer",),
}
"""What a media type's first document loads, before the fork: once for all that follow."""


class _End(IntEnum):
    """How the child that reads a document says what became of it."""

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


class Outcome(Frozen):
    status: Literal["read", "refused"]
    reason: str = ""


def main() -> None:
    """Serve orders until stdin closes."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; stdout is for answers
    # a damaged document makes them complain thousandfold; what matters is in the outcome
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    while line := sys.stdin.readline():
        order = Order.model_validate_json(line)
        for name in LIBRARIES.get(order.media_type, ()):
            importlib.import_module(name)
        answers.write(outcome_of(order, parse_file).model_dump_json() + "\n")
        answers.flush()


def outcome_of(order: Order, parse: Callable[[Path, str, str], ParsedDocument]) -> Outcome:
    """Run ``parse`` in a child under the order's limits and say what became of it."""
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
    os.dup2(nothing, 0)  # the parent's orders are not for this process
    order.limits.apply()
    target = Path(order.target)
    try:
        target.write_bytes(parse(Path(order.source), order.media_type, order.name).model_dump_json().encode())
    except Unreadable as error:
        target.write_text(str(error), "utf-8", errors="replace")
        return _End.REFUSED
    except MemoryError:
        return _End.NO_MEMORY
    except OSError as error:
        if error.errno == errno.EFBIG:  # what a write beyond RLIMIT_FSIZE fails with
            return _End.TOO_LONG
        raise
    return _End.READ


if __name__ == "__main__":
    main()
