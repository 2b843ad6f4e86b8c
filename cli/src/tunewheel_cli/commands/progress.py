"""Shows the start of the wheel (``up``): a table on a terminal, plain lines elsewhere. Draws progress bars of
slow commands: on a terminal only, and on standard error, because output is for results."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tunewheel_local.supervisor import Kept, State

if TYPE_CHECKING:
    from tunewheel_local.run_state import RunState

    from tunewheel_cli.publishing.publish import Summary

_COLOURS = {
    State.READY: "green",
    State.STARTING: "cyan",
    State.RESTARTING: "yellow",
    State.FAILED: "red",
    State.STOPPED: "dim",
    State.WAITING: "dim",
}


class StartDisplay:
    """Shows states on standard error, as output is for results. ``silent``: shows nothing."""

    def __init__(self, *, silent: bool = False) -> None:
        self._console = Console(file=sys.stderr, quiet=silent, highlight=False)
        self._progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._live = self._console.is_terminal and not silent
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, tuple[str, str]] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()

    def jars(self, ready: int, total: int) -> None:
        """Show how many of Kafka's jars are present. Shows nothing if none has to be fetched."""
        if "jars" not in self._tasks and ready == total:
            return
        if self._live:
            task = self._tasks.setdefault("jars", self._progress.add_task("Kafka's jars", total=total))
            self._progress.update(task, completed=ready)
        elif ready in (0, total):
            self._console.print(f"Kafka's jars: {ready} of {total}")
        self._tasks.setdefault("jars", TaskID(-1))

    def note(self, kept: Kept) -> None:
        self.show(kept.program.name, kept.state, kept.note)

    def state(self, state: RunState) -> None:
        """Show the states in another supervisor's file."""
        for name, service in state.services.items():
            self.show(name, State(service["state"]), service["note"])

    def show(self, name: str, state: State, note: str) -> None:
        if self._shown.get(name) == (state, note):
            return
        self._shown[name] = (state, note)
        words = f"{name:10} [{_COLOURS[state]}]{state.value}[/]" + (f" [dim]{note}[/]" if note else "")
        if not self._live:
            self._console.print(words)
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(words, total=1)
        done = int(state in (State.READY, State.FAILED, State.STOPPED))
        self._progress.update(self._tasks[name], description=words, completed=done)

    def running(self, state: RunState, *, logs: Path, end: str) -> None:
        """Show the addresses of the running wheel, the folder of logs, and how to stop it."""
        self._progress.stop()
        self._live = False
        self._console.print(f"\n[bold]Kafka[/]    {state.bootstrap_servers}")
        for name in ("console", "gateway", "ingest"):
            if (url := state.url_of(name)) is not None:
                self._console.print(f"[bold]{name:8}[/] {url}")
        self._console.print(f"[bold]logs[/]     {logs}\n{end} stops everything.", soft_wrap=True)

    @property
    def is_watched(self) -> bool:
        """Whether the output goes to a terminal. Secrets must not be written to a file."""
        return self._console.is_terminal

    def login(self, text: str) -> None:
        """Show the console's login link, after ``running``."""
        self._console.print("[bold]login[/]    ", end="")
        self._console.print(text, markup=False, soft_wrap=True)

    def stopping(self) -> None:
        self._progress.stop()
        self._live = False
        self._console.print("stopping …")


@contextmanager
def published_bar(*, silent: bool, verb: str = "publishing") -> Iterator[Callable[[Summary], None]]:
    """Show a bar of bytes with the numbers of published and refused events. Pass the result to
    ``publish_path``."""
    columns = (
        TextColumn(verb), BarColumn(), DownloadColumn(), TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with _bar(*columns, silent=silent) as progress:
        task = progress.add_task("", total=None)

        def note(summary: Summary) -> None:
            refused = f", [red]{summary.refused:,} refused[/]" if summary.refused else ""
            words = f"{summary.events:,} published{refused}" if summary.events or refused else ""
            done, total = summary.read_bytes, summary.total_bytes
            progress.update(task, completed=done, total=total, description=words)

        yield note


@contextmanager
def reading_bar(paths: Iterable[Path], *, silent: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar of the bytes of ``paths``. Call the result with the number of bytes read since its last
    call."""
    from tunewheel_cli.publishing.items import Summary
    from tunewheel_cli.publishing.sources import size_of

    summary = Summary("", total_bytes=sum(size_of(path) for path in paths))
    with published_bar(silent=silent, verb="reading") as show:

        def note(size: int) -> None:
            summary.count(size)
            show(summary)

        yield note


@contextmanager
def steps_bar(*, silent: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar of named steps. Call the result with a step's name, its position, and the number of
    steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _bar(*columns, silent=silent) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda step, done, of: progress.update(task, completed=done, total=of, description=step)


def _bar(*columns: ProgressColumn, silent: bool) -> Progress:
    console = Console(file=sys.stderr, quiet=silent, highlight=False)
    hidden = silent or not console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=hidden)
