"""Tries recipes on a dataset version: trains each for a part of its steps, measures it on validation rows,
and goes on with the better ones. Knows nothing of Kafka.

- ``sweeps/<sweep_id>/<run_id>/<part>.json``: what was measured of a run after that part of its steps
- ``sweeps/<sweep_id>/outcome.json``: how the sweep ended

Each object is written once. After a kill the next worker reads what was measured, and goes on from the
checkpoint of the run that was under way.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from tunewheel_contracts.errors import InvalidEvent, InvalidSpec
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested, TrainAction
from tunewheel_contracts.fields import Frozen, shared
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.sweep import (
    Lead,
    SweepState,
    TriedRun,
    by_labels,
    changed_recipe,
    demand_comparable,
    ranked,
)
from tunewheel_planner.spending import Cost, measured_cost
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.ceilings import CEILINGS, Ceilings
from tunewheel_train.errors import RunFailed
from tunewheel_train.execution import Trainings
from tunewheel_train.job import Tried
from tunewheel_train.rounds import Round, rounds_of
from tunewheel_train.runs.attempts import Tell
from tunewheel_train.runs.bases import Base
from tunewheel_train.runs.controls import Controls
from tunewheel_train.runs.runs import Result, Run, plan_run
from tunewheel_train.runs.starting import fetch_dataset


class Measured(Frozen):
    """The measurement of one run after one part of the run's steps."""

    run: TriedRun
    validation_examples: int | None = None
    label_hits: tuple[tuple[float, ...], ...] = ()
    """Which labelled validation rows were answered with the expert's label (1 or 0), by group."""


class Sweeps:
    """Trains sweeps, of each as many runs at once as this worker has slots. A sweep is trained once at a
    time."""

    def __init__(self, store: ObjectStore, trainings: Trainings, controls: Controls) -> None:
        self._store = store
        self._trainings = trainings
        self._controls = controls
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def train(
        self, event: SweepRequested, version: DatasetVersioned | None, *, lease: Lease, tell: Tell
    ) -> SweepProgressed:
        """Train the sweep, unless it has ended, and return how it ended. ``tell`` publishes its progress.

        Raises:
            InvalidEvent: the project has no such version, or a recipe is wrong.
            Lease.Lost: the partition moved; publish nothing more. TransientError: the store is away.
        """
        if version is None:
            raise InvalidEvent(
                field="dataset_id", reason=f"{event.project} has no version {event.dataset_id}"
            )
        manifest = await fetch_dataset(self._store, version)
        try:
            demand_comparable(event.recipes)
            recipes = [changed_recipe(manifest.spec.train, changes) for changes in event.recipes]
        except InvalidSpec as error:
            raise InvalidEvent(field=error.field, reason=error.reason) from error
        async with self._turns[event.sweep_id]:  # the same event may be delivered again meanwhile
            path = f"sweeps/{event.sweep_id}/outcome.json"
            ended = await self._store.document(path, SweepProgressed)
            if ended is None:
                sweep = _Sweep(event, lease, tell, self._store, self._trainings)
                ended = await self._ended(sweep, event, manifest, version, recipes, lease)
                ended = await self._store.first_document(path, ended)
            for run in ended.runs:  # also after a kill
                await self._trainings.forget(run.run_id)
            return ended

    async def _ended(
        self,
        sweep: _Sweep,
        event: SweepRequested,
        manifest: DatasetManifest,
        version: DatasetVersioned,
        recipes: Sequence[TrainSpec],
        lease: Lease,
    ) -> SweepProgressed:
        try:
            base = await self._trainings.base_of(manifest, lease)
            return await sweep.train(
                [
                    sweep.run(manifest, version, base, number, recipe)
                    for number, recipe in enumerate(recipes, 1)
                ]
            )
        except RunFailed as error:
            lease.check()
            if self._controls.latest(event.project, event.sweep_id) is TrainAction.CANCEL:
                return sweep.state(SweepState.CANCELLED, reason="was cancelled")
            return sweep.state(SweepState.FAILED, error.field, error.reason)


def refused(event: SweepRequested, field: str, reason: str) -> SweepProgressed:
    """Return how a sweep ends that is not trained."""
    runs = [TriedRun(run_id=_run_id(event, n), changes=one) for n, one in enumerate(event.recipes, 1)]
    return _progress(event, SweepState.FAILED, runs, 0, field=field, reason=reason)


class _Sweep:
    """One sweep, while it is trained."""

    def __init__(
        self, event: SweepRequested, lease: Lease, tell: Tell, store: ObjectStore, trainings: Trainings
    ) -> None:
        self._event = event
        self._lease = lease
        self._tell = tell
        self._store = store
        self._trainings = trainings
        self._known = {
            run_id: TriedRun(run_id=run_id, changes=changes)
            for number, changes in enumerate(event.recipes, 1)
            for run_id in [_run_id(event, number)]
        }
        self._ceilings = Ceilings(event)
        self._rows: int | None = None
        self._hits = dict[tuple[str, float], tuple[tuple[float, ...], ...]]()

    def run(
        self, manifest: DatasetManifest, version: DatasetVersioned, base: Base, number: int, recipe: TrainSpec
    ) -> Run:
        """Return the run of the recipe ``number``."""
        spec = manifest.spec.model_copy(update={"train": recipe})
        of_version = plan_run(manifest.model_copy(update={"spec": spec}), version.manifest, *base)
        run_id = _run_id(self._event, number)
        task = spec.task if spec.task.has_labels else None
        tried = Tried(sweep_id=self._event.sweep_id, task=task)
        return replace(of_version, run_id=run_id, model_id=run_id, tried=tried)

    async def train(self, runs: Sequence[Run]) -> SweepProgressed:
        """Train the rounds. Raises RunFailed: a ceiling was reached, the sweep was cancelled, or every run
        failed."""
        await self._tell(self.state(SweepState.TRAINING))
        alive = list(runs)
        for this in rounds_of(self._event.method, len(runs)):
            if this.before:
                order = [one.run_id for one in ranked([*self._known.values()])]
                alive = sorted(alive, key=lambda run: order.index(run.run_id))[: this.recipes]
            await self._train_round(alive, this, self._trainings.at_once)
            alive = [run for run in alive if not self._known[run.run_id].reason]
            if not alive:
                failed = self._known[runs[0].run_id]
                raise RunFailed(field=failed.field, reason=failed.reason)
        return self.state(SweepState.COMPLETED)

    async def _train_round(self, runs: Sequence[Run], this: Round, lanes: int) -> None:
        """Measure each of ``runs``, ``lanes`` of them at once. If one ends the sweep, no other begins, and
        those that are being trained are measured."""
        waiting = deque[Run]()
        for run in runs:  # what was measured before a kill counts towards the ceilings
            found = await self._store.document(self._path(run, this), Measured)
            if found is None:
                waiting.append(run)
            else:
                await self._saw(run, this, found)

        async def lane() -> None:
            try:
                while waiting:
                    run = waiting.popleft()
                    limited = self._limited(run, this, len(waiting) + 1, alone=lanes == 1 or not waiting)
                    measured = await self._trained(limited, this.part)
                    found = await self._store.first_document(self._path(run, this), measured)
                    await self._saw(run, this, found)
            finally:
                waiting.clear()

        ended = await asyncio.gather(*(lane() for _ in range(lanes)), return_exceptions=True)
        errors = sorted((one for one in ended if one), key=lambda one: isinstance(one, RunFailed))
        if errors and lanes > 1 and isinstance(errors[0], RunFailed) and errors[0].field in CEILINGS:
            # its share of the ceiling was too small; alone it may use all that is left
            return await self._train_round(runs, this, 1)
        if errors:
            raise errors[0]

    async def _saw(self, run: Run, this: Round, found: Measured) -> None:
        self._lease.check()
        self._known[run.run_id] = found.run
        self._ceilings.release(run.run_id)
        self._rows = found.validation_examples or self._rows
        self._hits[run.run_id, this.part] = found.label_hits
        await self._tell(self.state(SweepState.TRAINING))

    def _path(self, run: Run, this: Round) -> str:
        return f"sweeps/{self._event.sweep_id}/{run.run_id}/{this.part:g}.json"

    def _limited(self, run: Run, this: Round, unbegun: int, *, alone: bool) -> Run:
        """Return ``run``, which begins, with its ceilings: all that is left of the sweep's if it is
        ``alone``. Else its share by what is left to train; ``unbegun`` runs of this round have not begun."""
        known, step = self._known[run.run_id], this.part - this.before
        assert run.tried is not None
        left = unbegun * step + this.after
        share = 1.0 if alone else step / left
        ceilings = self._ceilings.hold(known, self._known.values(), share)
        told = {"part": this.part, "left": left * share, "spent_hours": known.seconds / 3600}
        recipe, tried = run.recipe.model_copy(update=ceilings), run.tried.model_copy(update=told)
        return replace(run, recipe=recipe, tried=tried)

    async def _trained(self, run: Run, part: float) -> Measured:
        known = self._known[run.run_id]
        try:
            result = await self._trainings.measure(run, self._lease)
        except RunFailed as error:
            self._lease.check()
            told = known.model_copy(update=_cost(error.plan, known.seconds + error.seconds))
            if error.field in (*CEILINGS, "(run)"):
                self._known[run.run_id] = told
                self._ceilings.release(run.run_id)
                raise
            return Measured(run=told.model_copy(update={"field": error.field, "reason": error.reason}))
        return _measured(known, part, result)

    def state(self, state: SweepState, field: str = "", reason: str = "") -> SweepProgressed:
        """Return what is known now."""
        runs = list(self._known.values())
        told = _progress(
            self._event, state, runs, len(self._hits), rows=self._rows, field=field, reason=reason
        )
        if state is SweepState.TRAINING:
            return told
        best_first = ranked(runs)
        first, second = [*best_first, None, None][:2]
        hits = self._hits.get((first.run_id, first.part), ()) if first else ()
        lead = None
        if first and second and by_labels(best_first):
            # halving measured both only after the steps of the second
            both = [self._hits[run.run_id, second.part] for run in (first, second)]
            lead = lead_of(*both, over=second.run_id, part=second.part)
        return told.model_copy(update={"labelled_examples": sum(map(len, hits)) or None, "lead": lead})


def _run_id(event: SweepRequested, number: int) -> str:
    return f"{event.sweep_id}-{number}"


def _cost(plan: TrainPlan | None, seconds: float) -> dict[str, float | None]:
    """Return what a run cost in ``seconds``, as fields of ``TriedRun``."""
    cost = measured_cost(plan, wall_seconds=seconds) if plan else Cost()
    dollars = cost.dollars if plan and plan.dollars is not None else None
    return {"seconds": seconds, "gpu_hours": cost.gpu_hours, "dollars": dollars}


def _measured(known: TriedRun, part: float, result: Result) -> Measured:
    outcome = result.outcome
    run = known.model_copy(
        update={
            "part": part,
            "steps": outcome.steps,
            "total_steps": result.total_steps,
            "validation_loss": outcome.metrics["validation_loss"],
            "label_accuracy": outcome.metrics.get("validation_label_accuracy"),
        }
        | _cost(result.plan, outcome.wall_seconds)
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


def _progress(
    event: SweepRequested,
    state: SweepState,
    runs: Sequence[TriedRun],
    measured: int,
    *,
    rows: int | None = None,
    field: str = "",
    reason: str = "",
) -> SweepProgressed:
    best = next(iter(ranked(runs)), None)
    priced = [run.dollars for run in runs if run.dollars is not None]
    return SweepProgressed(
        **shared(SweepProgressed, event),
        state=state,
        measured=measured,
        runs=tuple(runs),
        best=best.run_id if best else None,
        validation_examples=rows,
        hours=sum(run.seconds for run in runs) / 3600,
        dollars=sum(priced) if priced else None,
        field=field,
        reason=reason,
    )
