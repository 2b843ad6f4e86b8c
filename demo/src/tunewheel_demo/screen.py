"""Shows the demo on the terminal: a live table of each turn's steps, and answers side by side."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.formats.scorecard import Role, Slice

from tunewheel_demo.feed import EventFeed

SHOWN_METRICS = ("valid_output", "label_accuracy", "rouge_l", "perplexity", "regression_accuracy")
RIGHT = 0.8
"""The share of a slice's rows from which on the slice is shown as right."""


class Screen:
    """Writes to the terminal. ``quiet``: writes nothing; the summary file is for machines."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self._table: Progress | None = None
        self._waiting: dict[str, Bar] = {}

    @property
    def is_watched(self) -> bool:
        """Whether a person looks on, who can end with Ctrl-C what keeps running."""
        return self.console.is_terminal and not self.console.quiet

    def say(self, text: str) -> None:
        self.console.print(text)

    def title(self, text: str) -> None:
        self.console.rule(f"[bold]{text}", align="left")

    @contextlib.contextmanager
    def steps(self, reasons: Mapping[str, str]) -> Iterator[None]:
        """Show a table of the steps to come, each with its reason, until all are done."""
        columns = (
            _Mark(), TextColumn("{task.description}"), _StartedBar(bar_width=12), _Count(),
            TimeElapsedColumn(), TextColumn("{task.fields[note]}", table_column=Column(ratio=1)),
        )  # fmt: skip
        # Twice a second: the terminal takes processor time that a training on two cores needs.
        with Progress(*columns, console=self.console, expand=True, refresh_per_second=2) as self._table:
            self._waiting = {name: Bar(self._table, name, reason) for name, reason in reasons.items()}
            try:
                yield
            finally:
                self._table, self._waiting = None, {}

    @contextlib.contextmanager
    def bar(self, name: str, total: float | None = None) -> Iterator[Bar]:
        """Show the progress of one step: in the table of ``steps``, or alone."""
        with contextlib.ExitStack() as stack:
            if self._table is None:
                stack.enter_context(self.steps({name: ""}))
            assert self._table is not None
            bar = self._waiting.get(name) or Bar(self._table, name, "")
            bar.start(total)
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
            self.say(f"  {mark} {check.criterion.title}: {check.reason}")

    def slices(self, slices: Sequence[Slice]) -> None:
        """Show the candidate's figure for each of ``slices``, which share a metric and a property. A figure
        below ``RIGHT`` is coloured, with the number of rows and the champion's figure."""
        if slices:
            self.say(f"  {slices[0].metric} by {slices[0].by}: {', '.join(map(_slice, slices))}")

    def answers(self, models: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
        """Show the models' answers to the same questions side by side. A row: a question, its answers."""
        table = Table("question", *models, show_lines=True)
        for question, *answers in rows:
            table.add_row(_short(question), *map(_readable, answers))
        self.console.print(table)


class Bar:
    """The progress of one step, which waits until it starts."""

    def __init__(self, progress: Progress, name: str, reason: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, start=False, total=None, note=f"[dim]{reason}")

    def start(self, total: float | None) -> None:
        self._progress.start_task(self._task)
        self._progress.update(self._task, total=total)

    def to(self, done: float, total: float | None = None, note: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total)
        if note:
            self._progress.update(self._task, note=note)

    def finish(self) -> None:
        task = next(task for task in self._progress.tasks if task.id == self._task)
        total = task.total if task.total is not None else max(task.completed, 1)
        self._progress.update(self._task, completed=total, total=total)


class _Mark(ProgressColumn):
    def render(self, task: Task) -> Text:
        if not task.started:
            return Text("·", "dim")
        return Text("✓", "green") if task.finished else Text("▸", "bold")


class _StartedBar(BarColumn):
    def render(self, task: Task) -> Any:
        return super().render(task) if task.started else Text("")


class _Count(ProgressColumn):
    """How many of how many; nothing for a step that is one thing."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{task.total:.0f}"
        return Text(f"{task.completed:.0f}{total}" if max(task.completed, task.total or 0) > 1 else "", "dim")


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

    for event in (*feed.of(topics.TRAIN_STARTED), *feed.of(topics.TRAIN_PROGRESSED)):
        follow(event)
    feed.observe(follow)
    try:
        yield
    finally:
        feed.forget(follow)


def _slice(one: Slice) -> str:
    figure, champion = one.figures[Role.CANDIDATE], one.figures.get(Role.CHAMPION)
    if figure >= RIGHT:
        return f"{one.value} {figure:.2f}"
    before = "" if champion is None else f", champion {champion:.2f}"
    return f"[yellow]{one.value} {figure:.2f} of {one.rows}{before}[/]"


def _short(text: str, limit: int = 220) -> str:
    text = " ".join(text.split())
    return escape(text if len(text) <= limit else text[: limit - 1] + "…")


def _readable(answer: str) -> str:
    """Return an answer for people: of an object, its values."""
    with contextlib.suppress(ValueError):
        said = json.loads(answer)
        if isinstance(said, dict):
            return "\n".join(
                _short(value if isinstance(value, str) else json.dumps(value)) for value in said.values()
            )
    return f"[dim]{_short(answer, 120)}"
