"""Shows the demo on the terminal: stages with bars, answers side by side, the lineage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope

from tunewheel_cli.feed import EventFeed

SHOWN_METRICS = ("valid_output", "label_accuracy", "rouge_l", "perplexity", "regression_accuracy")


class Screen:
    """Writes to the terminal. ``quiet``: writes nothing; the summary file is for machines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        self.console.print(text)

    def title(self, text: str) -> None:
        self.console.rule(f"[bold]{text}", align="left")

    @contextlib.contextmanager
    def bar(self, name: str, total: float | None = None) -> Iterator[Bar]:
        """Show one stage's bar; without a total it only spins."""
        columns = (
            SpinnerColumn(), TextColumn("{task.description:<14}"), BarColumn(bar_width=30),
            MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[note]}"),
        )  # fmt: skip
        with Progress(*columns, console=self.console) as progress:
            bar = Bar(progress, name, total)
            yield bar
            bar.finish()

    def contestants(self, verdict: Envelope[Any]) -> None:
        """Show the figures on which a verdict is based."""
        table = Table("", *SHOWN_METRICS, title=f"{verdict.data.type}: {verdict.data.adapter.model_id}")
        for contestant in verdict.data.contestants:
            figures = [contestant.metrics.get(name) for name in SHOWN_METRICS]
            table.add_row(contestant.role.value, *("" if f is None else f"{f:.3f}" for f in figures))
        self.console.print(table)
        for check in verdict.data.checks:
            mark = "[green]holds[/]" if check.passed else "[red]misses[/]"
            self.say(f"  {mark} {check.criterion.metric}: {check.reason}")

    def answers(self, left: str, right: str, rows: Sequence[tuple[str, str, str]]) -> None:
        """Show two models' answers to the same questions side by side."""
        table = Table("question", left, right, show_lines=True)
        for question, first, second in rows:
            table.add_row(_short(question), _short(first), _short(second))
        self.console.print(table)


class Bar:
    """One stage's progress."""

    def __init__(self, progress: Progress, name: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total, note="")

    def to(self, done: float, total: float | None = None, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, note=note)

    def finish(self) -> None:
        task = self._progress.tasks[0]
        total = task.total if task.total is not None else max(task.completed, 1)
        self._progress.update(self._task, completed=total, total=total)


@contextlib.contextmanager
def training_progress(feed: EventFeed, bar: Bar, dataset_id: str) -> Iterator[None]:
    """Move ``bar`` by the progress events of the run on ``dataset_id``."""
    runs: set[str] = set()

    def follow(event: Envelope[Any]) -> None:
        data = event.data
        if data.type == topics.TRAIN_STARTED.name and data.dataset_id == dataset_id:
            runs.add(data.run_id)
            bar.to(data.resumed_from_step, data.total_steps)
        elif data.type == topics.TRAIN_PROGRESSED.name and data.run_id in runs:
            note = f"loss {data.loss:.3f}  {data.tokens_per_second:.0f} tok/s  {data.eta_seconds:.0f} s left"
            bar.to(data.step, data.total_steps, note)

    for event in (*feed.by_topic[topics.TRAIN_STARTED.name], *feed.by_topic[topics.TRAIN_PROGRESSED.name]):
        follow(event)
    feed.observe(follow)
    try:
        yield
    finally:
        feed.forget(follow)


def _short(text: str, limit: int = 220) -> str:
    text = " ".join(text.split())
    return escape(text if len(text) <= limit else text[: limit - 1] + "…")
