"""Waits for one turn of the wheel, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunewheel_client import AsyncClient
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.formats.scorecard import Role, Slice
from tunewheel_wheel.models import Models, stage_after

from tunewheel_demo.feed import EventFeed
from tunewheel_demo.gauge import Stopwatch
from tunewheel_demo.screen import Bar, Screen, training_progress

LONGEST_STAGE_SECONDS = 1_800.0


class TurnStopped(TunewheelError):
    """The wheel stopped the turn. The message holds the reason."""


@dataclass(slots=True)
class Turn:
    """The results of one turn."""

    dataset: Envelope[DatasetVersioned]
    trained: Envelope[Any]
    verdict: Envelope[Any]
    by_label: tuple[Slice, ...]
    """The first criterion's figures by label, worst first."""
    promoted: bool = False
    """Whether its model reached production."""

    @property
    def model_id(self) -> str:
        return self.verdict.data.adapter.model_id

    @property
    def passed(self) -> bool:
        return self.verdict.data.type == topics.EVAL_PASSED.name

    @property
    def refusal(self) -> str:
        """The word for a verdict that is no pass."""
        return "undecided" if self.verdict.data.type == topics.EVAL_UNDECIDED.name else "refused"

    def summary(self) -> dict[str, Any]:
        """Return the turn for the summary file."""
        figures = {c.role.value: _figures(c.metrics) for c in self.verdict.data.contestants}
        return {
            "dataset_id": self.dataset.data.dataset_id,
            "run_id": self.verdict.data.run_id,
            "adapter_id": self.model_id,
            "verdict": "passed" if self.passed else self.refusal.replace("refused", "failed"),
            "promoted": self.promoted,
            "examples": self.dataset.data.counts.model_dump(),
            "training_tokens": self.trained.data.tokens,
            "training_seconds": round(self.trained.data.wall_seconds, 2),
            "base": figures.get("base"),
            "champion": figures.get("champion"),
            "candidate": figures.get("candidate"),
            "by_label": {one.value: one.figures[Role.CANDIDATE] for one in self.by_label},
        }


class TurnWatcher:
    """Waits for the stages of a turn and shows them."""

    def __init__(
        self, feed: EventFeed, screen: Screen, watch: Stopwatch, project: str, client: AsyncClient
    ) -> None:
        self._feed = feed
        self._screen = screen
        self._watch = watch
        self._project = project
        self._client = client

    async def dataset(self, name: str, *, after: set[str]) -> Envelope[DatasetVersioned]:
        """Wait for a version that is not in ``after``.

        Raises:
            TurnStopped: curate rejected the version.
        """
        with self._watch.stage(name), self._screen.bar(name) as bar:
            event = await self._feed.first(
                topics.DATASET_VERSIONED,
                topics.DATASET_REJECTED,
                where=lambda e: self._is_ours(e) and getattr(e.data, "dataset_id", None) not in after,
                patience=LONGEST_STAGE_SECONDS,
            )
            if event.data.type == topics.DATASET_REJECTED.name:
                raise TurnStopped("; ".join(event.data.reasons))
            counts = event.data.counts
            bar.to(counts.examples, counts.records, f"{counts.train} to train, {counts.holdout} held out")
        return event

    async def trained(self, name: str, dataset: Envelope[DatasetVersioned]) -> Envelope[Any]:
        """Wait for the run on ``dataset``, or on the version that superseded it before it began."""
        dataset_id = dataset.data.dataset_id
        with self._watch.stage(name), self._screen.bar(name) as bar:
            event = await self._run_on(dataset_id, bar)
            while newer := getattr(event.data, "superseded_by", None):
                event = await self._run_on(newer, bar)
        if event.data.type == topics.TRAIN_FAILED.name:
            raise TurnStopped(f"{event.data.field}: {event.data.reason}")
        return event

    async def _run_on(self, dataset_id: str, bar: Bar) -> Envelope[Any]:
        with training_progress(self._feed, bar, dataset_id):
            return await self._feed.first(
                topics.TRAIN_COMPLETED,
                topics.TRAIN_FAILED,
                where=lambda e: e.data.dataset_id == dataset_id,
                patience=LONGEST_STAGE_SECONDS,
            )

    async def judged(self, name: str, trained: Envelope[Any]) -> Envelope[Any]:
        """Wait for the verdict on the run, and show the figures.

        Raises:
            TurnStopped: eval could not measure the model.
        """
        with self._watch.stage(name), self._screen.bar(name):
            verdict = await self._feed.first(
                topics.EVAL_PASSED,
                topics.EVAL_FAILED,
                topics.EVAL_UNDECIDED,
                where=lambda e: e.data.run_id == trained.data.run_id,
                patience=LONGEST_STAGE_SECONDS,
            )
        if verdict.data.type == topics.EVAL_FAILED.name and verdict.data.field:
            raise TurnStopped("; ".join(verdict.data.reasons))
        self._screen.contestants(verdict)
        return verdict

    async def turn(self, suffix: str, *, after: set[str]) -> Turn:
        """Wait for a whole turn, from the dataset to the verdict."""
        dataset = await self.dataset(f"curate {suffix}", after=after)
        trained = await self.trained(f"train {suffix}", dataset)
        verdict = await self.judged(f"evaluate {suffix}", trained)
        judged = await self._client.evaluations.show(
            self._project, verdict.data.evaluation_id or verdict.data.run_id
        )
        slices = judged.scorecard.slices if judged.scorecard is not None else ()
        by_label = tuple(one for one in slices if one.by == "label")
        self._screen.slices(by_label)
        return Turn(dataset, trained, verdict, by_label)

    def stages_of(self, model_id: str) -> list[Stage]:
        """Return the stages to which the registry has moved ``model_id``, the present one last."""
        models = Models()
        for topic in (topics.MODEL_PROMOTED, topics.MODEL_ROLLEDBACK):
            for step in self._feed.of(topic):
                models.move(step)
        return [stage_after(step) for step in models.steps(model_id)]

    def _is_ours(self, event: Envelope[Any]) -> bool:
        return event.project == self._project


def _figures(metrics: dict[str, float]) -> dict[str, float]:
    """Return the figures by common names, and by the metrics' own names."""
    named = {"valid": metrics.get("valid_output"), "category_accuracy": metrics.get("label_accuracy")}
    return {k: round(v, 4) for k, v in (named | metrics).items() if v is not None}
