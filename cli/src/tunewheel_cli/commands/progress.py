"""Shows the start of the wheel (``up``): a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from tunewheel_cli.supervisor import Kept, State

if TYPE_CHECKING:
    from tunewheel_cli.run_state import RunState

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
        self._told: dict[str, tuple[str, str]] = {}

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
        if self._told.get(name) == (state, note):
            return
        self._told[name] = (state, note)
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

    def login(self, told: str) -> None:
        """Show the console's login link, after ``running``."""
        self._console.print("[bold]login[/]    ", end="")
        self._console.print(told, markup=False, soft_wrap=True)

    def stopping(self) -> None:
        self._progress.stop()
        self._live = False
        self._console.print("stopping …")
