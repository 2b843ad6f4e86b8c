"""Progress bars of slow commands. They are shown on a terminal only, on standard error: output is for
results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from tunewheel_cli.publishing.publish import Summary


@contextmanager
def published_bar(*, silent: bool) -> Iterator[Callable[[Summary], None]]:
    """Show a bar of bytes with the numbers of published and refused events. Pass the result to
    ``publish_path``."""
    columns = (
        TextColumn("publishing"), BarColumn(), DownloadColumn(), TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with _bar(*columns, silent=silent) as progress:
        task = progress.add_task("", total=None)

        def note(summary: Summary) -> None:
            refused = f", [red]{summary.refused:,} refused[/]" if summary.refused else ""
            words = f"{summary.events:,} published{refused}"
            done, total = summary.read_bytes, summary.total_bytes
            progress.update(task, completed=done, total=total, description=words)

        yield note


class Rows:
    """One bar for the rows of several files."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading", total=None)

    def expect(self, rows: int) -> None:
        """Set the total number of rows."""
        self._progress.update(self._task, total=rows)

    def note(self, name: str, rows: int) -> None:
        """Show that one file with ``rows`` was written."""
        self._progress.update(self._task, advance=rows, description=f"wrote {name}")


@contextmanager
def rows_bar(*, silent: bool) -> Iterator[Rows]:
    """Show a bar of rows."""
    with _named(TimeRemainingColumn(), silent=silent) as progress:
        yield Rows(progress)


@contextmanager
def steps_bar(*, silent: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar of named steps. Call the result with a step's name, its position, and the number of
    steps."""
    with _named(TimeElapsedColumn(), silent=silent) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda step, done, of: progress.update(task, completed=done, total=of, description=step)


def _named(time: ProgressColumn, *, silent: bool) -> Progress:
    return _bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), time, silent=silent)


def _bar(*columns: ProgressColumn, silent: bool) -> Progress:
    console = Console(file=sys.stderr, quiet=silent, highlight=False)
    hidden = silent or not console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=hidden)
