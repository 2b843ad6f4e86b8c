"""Limits for reading one document, enforced by the kernel."""

from __future__ import annotations

import resource
import signal

from tunewheel_contracts.fields import Frozen

MAIL_SHARE = 20
"""A ticket may take a 20th of the processor time that a document may take: many tickets are fetched
together, and all must be read before Kafka removes the consumer from its group."""
MAIL_WALL_SHARE = 10
"""The share of the time that a document may take. It is larger, because other work may use the processor."""


class Limits(Frozen):
    """Limits of the process that reads one document."""

    memory_bytes: int
    """Address space. Linux enforces it, macOS does not."""
    cpu_seconds: int
    wall_seconds: int
    output_bytes: int
    """Size of the Markdown and the sections together."""

    @property
    def for_mail(self) -> Limits:
        """The limits for the texts of one ticket."""
        return self.model_copy(
            update={
                "cpu_seconds": max(1, self.cpu_seconds // MAIL_SHARE),
                "wall_seconds": max(1, self.wall_seconds // MAIL_WALL_SHARE),
            }
        )

    def apply(self) -> None:
        """Set these limits for this process; they cannot be raised again."""
        for what, limit in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_AS, self.memory_bytes),
            (resource.RLIMIT_FSIZE, self.output_bytes),
        ):
            _lower(what, limit)
        # the soft limit sends SIGXCPU, whose default ends the process; a second later comes SIGKILL
        _lower(resource.RLIMIT_CPU, self.cpu_seconds, self.cpu_seconds + 1)
        for number in (signal.SIGXCPU, signal.SIGALRM, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, self.wall_seconds)

    def exceeded(self, ended_by: int) -> str | None:
        """Return the limit that a process exceeded when a signal ended it; None if that is not known."""
        return {
            signal.SIGABRT: self.too_much_memory,  # how Rust ends a process that gets no more memory
            signal.SIGXCPU: f"takes over {self.cpu_seconds} s of processor time to read; shorten it, or "
            "raise TUNEWHEEL_PARSE_CPU_SECONDS",
            signal.SIGALRM: f"takes over {self.wall_seconds} s to read; shorten it, or raise "
            "TUNEWHEEL_PARSE_WALL_SECONDS",
        }.get(signal.Signals(ended_by))

    @property
    def too_much_memory(self) -> str:
        return (
            f"takes over {self.memory_bytes >> 20} MiB of memory to read; shorten it, or raise "
            "TUNEWHEEL_PARSE_MEMORY_MB"
        )

    @property
    def too_much_text(self) -> str:
        return f"makes over {self.output_bytes >> 20} MiB of text; shorten it"


def _lower(what: int, soft: int, hard: int | None = None) -> None:
    """Set a limit, but never above this process's own limit."""
    _, ceiling = resource.getrlimit(what)
    wanted = soft if hard is None else hard
    top = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
    resource.setrlimit(what, (min(soft, top), top))
