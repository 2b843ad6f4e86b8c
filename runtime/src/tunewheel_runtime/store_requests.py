"""Measures requests to the object store, and turns their failures into ``TransientError``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Literal

from obstore.exceptions import BaseError
from opentelemetry.metrics import Meter
from tunewheel_contracts.errors import TransientError

from tunewheel_runtime.metrics import WORK_SECONDS

Operation = Literal["write", "read", "find", "list", "delete"]


class StoreRequests:
    """The metrics ``tunewheel.store.seconds`` (by operation and outcome) and ``tunewheel.store.bytes`` (by
    operation)."""

    def __init__(self, meter: Meter) -> None:
        self._seconds = meter.create_histogram(
            "tunewheel.store.seconds",
            "s",
            "Requests to the object store, by operation and outcome",
            explicit_bucket_boundaries_advisory=list(WORK_SECONDS),
        )
        self._bytes = meter.create_counter(
            "tunewheel.store.bytes", "By", "Bytes written to the object store and read from it, by operation"
        )

    @contextlib.contextmanager
    def one(
        self, operation: Operation, path: str, *, answer: type[Exception] | None = None
    ) -> Generator[Callable[[int], None]]:
        """Measure the ``with`` block, which makes one request and reports the transferred bytes.

        An exception of type ``answer`` is an answer of the store and not a failure; it is passed on. A
        cancelled request is measured with an outcome of its own, because the store's answer is unknown.
        Raises TransientError: the store cannot be reached, or refuses.
        """
        began, outcome = time.perf_counter(), "cancelled"
        try:
            yield lambda count: self._bytes.add(count, {"operation": operation})
            outcome = "done"
        except (BaseError, OSError) as error:
            if answer is not None and isinstance(error, answer):
                outcome = "done"
                raise
            outcome = "failed"
            raise TransientError(f"cannot {operation} {path}: {_said(error)}") from error
        finally:
            labels = {"operation": operation, "outcome": outcome}
            self._seconds.record(time.perf_counter() - began, labels)


def _said(error: Exception) -> str:
    """Return obstore's message without the dump of Rust data structures that follows it."""
    return str(error).partition("\n\nDebug source:")[0]
