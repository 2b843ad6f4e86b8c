"""What was measured of the runs of a sweep, and how the sweep stands by it.

- ``sweeps/<sweep_id>/<run_id>/<part>.json``: what was measured of a run after that part of its steps

Each object is written once.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_contracts.events.training import SweepProgressed, SweepRequested
from tunewheel_contracts.fields import Frozen, shared
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.sweep import Lead, SweepState, TriedRun, by_labels, ranked
from tunewheel_planner.spending import Cost, measured_cost
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.runs.runs import Result


class Measured(Frozen):
    """The measurement of one run after one part of the run's steps."""

    run: TriedRun
    validation_examples: int | None = None
    label_hits: tuple[tuple[float, ...], ...] = ()
    """Which labelled validation rows were answered with the expert's label (1 or 0), by group."""


class Measurements:
    """The measurements of one sweep."""

    def __init__(self, store: ObjectStore, event: SweepRequested) -> None:
        self._store = store
        self._event = event
        self.known = {
            run_id: TriedRun(run_id=run_id, changes=changes)
            for number, changes in enumerate(event.recipes, 1)
            for run_id in [run_id_of(event, number)]
        }
        """The runs by their ids, in the order of the recipes."""
        self._rows: int | None = None
        self._hits = dict[str, tuple[tuple[float, ...], ...]]()
        """By the paths of the measurements, whose parts are rounded."""

    async def find(self, run_id: str, part: float) -> Measured | None:
        """Return what was measured of the run after ``part`` of its steps; None: nothing. Raises
        TransientError."""
        return await self._store.document(self._path(run_id, part), Measured)

    async def first(self, run_id: str, part: float, found: Measured) -> Measured:
        """Store ``found``, unless there is one; return the stored one. Raises TransientError."""
        return await self._store.first_document(self._path(run_id, part), found)

    def add(self, part: float, found: Measured) -> None:
        self.known[found.run.run_id] = found.run
        self._rows = found.validation_examples or self._rows
        self._hits[self._path(found.run.run_id, part)] = found.label_hits

    async def recall(self) -> None:
        """Add all that the store has. Raises TransientError."""
        for run_id in self.known:
            parts = [
                float(path.rpartition("/")[2].removesuffix(".json"))
                for path in await self._store.list(f"{self._folder}/{run_id}/")
            ]
            for part in sorted(parts):
                if found := await self.find(run_id, part):
                    self.add(part, found)

    @property
    def _folder(self) -> str:
        return f"sweeps/{self._event.sweep_id}"

    def _path(self, run_id: str, part: float) -> str:
        return f"{self._folder}/{run_id}/{part:g}.json"

    def state(self, state: SweepState, field: str = "", reason: str = "") -> SweepProgressed:
        """Return what is known now."""
        told = self._progress(state, field, reason)
        if state is SweepState.TRAINING:
            return told
        best_first = ranked(told.runs)
        first, second = [*best_first, None, None][:2]
        hits = self._hits.get(self._path(first.run_id, first.part), ()) if first else ()
        lead = None
        if first and second and by_labels(best_first):
            # halving measured both only after the steps of the second
            both = [self._hits[self._path(run.run_id, second.part)] for run in (first, second)]
            lead = lead_of(*both, over=second.run_id, part=second.part)
        return told.model_copy(update={"labelled_examples": sum(map(len, hits)) or None, "lead": lead})

    def _progress(self, state: SweepState, field: str, reason: str) -> SweepProgressed:
        runs = list(self.known.values())
        best = next(iter(ranked(runs)), None)
        priced = [run.dollars for run in runs if run.dollars is not None]
        return SweepProgressed(
            **shared(SweepProgressed, self._event),
            state=state,
            measured=len(self._hits),
            runs=tuple(runs),
            best=best.run_id if best else None,
            validation_examples=self._rows,
            hours=sum(run.seconds for run in runs) / 3600,
            dollars=sum(priced) if priced else None,
            field=field,
            reason=reason,
        )


def run_id_of(event: SweepRequested, number: int) -> str:
    """Return the id of the run of the recipe ``number``, from 1."""
    return f"{event.sweep_id}-{number}"


def cost_fields(plan: TrainPlan | None, seconds: float) -> dict[str, float | None]:
    """Return what a run cost in ``seconds``, as fields of ``TriedRun``."""
    cost = measured_cost(plan, wall_seconds=seconds) if plan else Cost()
    dollars = cost.dollars if plan and plan.dollars is not None else None
    return {"seconds": seconds, "gpu_hours": cost.gpu_hours, "dollars": dollars}


def measured_of(known: TriedRun, part: float, result: Result) -> Measured:
    """Return what ``result`` says of the run ``known`` after ``part`` of its steps."""
    outcome = result.outcome
    run = known.model_copy(
        update={
            "part": part,
            "steps": outcome.steps,
            "total_steps": result.total_steps,
            "validation_loss": outcome.metrics["validation_loss"],
            "label_accuracy": outcome.metrics.get("validation_label_accuracy"),
        }
        | cost_fields(result.plan, outcome.wall_seconds)
    )
    rows = round(outcome.metrics["validation_examples"])
    return Measured(run=run, validation_examples=rows, label_hits=outcome.label_hits)


def lead_of(
    best: Sequence[Sequence[float]], second: Sequence[Sequence[float]], *, over: str, part: float
) -> Lead | None:
    """Return the lead in label accuracy on the same rows, given as hits (1 or 0) by group; None: no row has a
    label. A group's rows count as one observation, as in a verdict."""
    sizes = [len(group) for group in best]
    if not sizes or sizes != [len(group) for group in second]:
        return None
    import numpy as np
    from tunewheel_verdicts.significance import Scores, compare

    a, b = (Scores(np.array([hit for group in one for hit in group])) for one in (best, second))
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    found = compare(a, b, clusters, test="proportion", alpha=0.025)
    return Lead(over=over, part=part, difference=found.difference, low=found.low, high=found.high)
