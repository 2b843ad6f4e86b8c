"""Tries recipes on a dataset version: trains each for a part of its steps, measures it on validation rows,
and goes on with the better ones. Knows nothing of Kafka.

``sweeps/<sweep_id>/outcome.json``, written once, says how the sweep ended. After a kill the next worker reads
what was measured (``measurements.py``), and goes on from the checkpoint of the run that was under way.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from tunewheel_contracts.errors import InvalidEvent, InvalidSpec
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested, TrainAction
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.sweep import SweepState, changed_recipe, demand_comparable, ranked
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.ceilings import CEILINGS, Ceilings
from tunewheel_train.errors import RunFailed
from tunewheel_train.execution import Trainings
from tunewheel_train.job import Tried
from tunewheel_train.measurements import Measured, Measurements, cost_fields, measured_of, run_id_of
from tunewheel_train.rounds import Round, rounds_of
from tunewheel_train.runs import remote_checkpoints
from tunewheel_train.runs.attempts import Tell
from tunewheel_train.runs.bases import Base
from tunewheel_train.runs.controls import Controls, Versions
from tunewheel_train.runs.runs import Run, checkpoints_prefix, plan_run
from tunewheel_train.runs.starting import fetch_dataset


class Sweeps:
    """Trains sweeps, of each as many runs at once as this worker has slots. A sweep is trained once at a
    time."""

    def __init__(
        self, store: ObjectStore, trainings: Trainings, controls: Controls, versions: Versions
    ) -> None:
        self._store = store
        self._trainings = trainings
        self._controls = controls
        self._versions = versions
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def train(self, event: SweepRequested, *, lease: Lease, tell: Tell) -> SweepProgressed:
        """Train the sweep, unless it has ended, and return how it ended. ``tell`` publishes its progress.

        Raises:
            InvalidEvent: the project has no such version, or a recipe is wrong.
            Lease.Lost: the partition moved; publish nothing more. TransientError: the store is away.
        """
        version = version_of(event, self._versions)
        manifest = await fetch_dataset(self._store, version)
        try:
            demand_comparable(event.recipes)
            recipes = [changed_recipe(manifest.spec.train, changes) for changes in event.recipes]
        except InvalidSpec as error:
            raise InvalidEvent(field=error.field, reason=error.reason) from error
        async with self._turns[event.sweep_id]:  # the same event may be delivered again meanwhile
            ended = await self._store.document(_outcome_path(event), SweepProgressed)
            if ended is None:
                sweep = _Sweep(event, lease, tell, self._store, self._trainings)
                ended = await self._ended(sweep, event, manifest, version, recipes, lease)
                ended = await self._store.first_document(_outcome_path(event), ended)
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
                return sweep.measurements.state(SweepState.CANCELLED, reason="was cancelled")
            return sweep.measurements.state(SweepState.FAILED, error.field, error.reason)


def version_of(event: SweepRequested, versions: Versions) -> DatasetVersioned:
    """Return the version that is asked for. Raises InvalidEvent: the project has none of that id."""
    version = versions.version(event.project, event.dataset_id)
    if version is None:
        raise InvalidEvent(field="dataset_id", reason=f"{event.project} has no version {event.dataset_id}")
    return version


async def cut_off(
    store: ObjectStore, event: SweepRequested, state: SweepState, *, field: str = "", reason: str
) -> SweepProgressed:
    """End a sweep that nothing trains any more, and delete its checkpoints. Return how it ended, with what
    was measured of it; a sweep that had ended stays as it was. Raises TransientError."""
    measurements = Measurements(store, event)
    await measurements.recall()
    ended = await store.first_document(_outcome_path(event), measurements.state(state, field, reason))
    for run in ended.runs:
        await remote_checkpoints.remove(store, checkpoints_prefix(run.run_id))
    return ended


def _outcome_path(event: SweepRequested) -> str:
    return f"sweeps/{event.sweep_id}/outcome.json"


class _Sweep:
    """One sweep, while it is trained."""

    def __init__(
        self, event: SweepRequested, lease: Lease, tell: Tell, store: ObjectStore, trainings: Trainings
    ) -> None:
        self._event = event
        self._lease = lease
        self._tell = tell
        self._trainings = trainings
        self.measurements = Measurements(store, event)
        self._ceilings = Ceilings(event)

    def run(
        self, manifest: DatasetManifest, version: DatasetVersioned, base: Base, number: int, recipe: TrainSpec
    ) -> Run:
        """Return the run of the recipe ``number``."""
        spec = manifest.spec.model_copy(update={"train": recipe})
        of_version = plan_run(manifest.model_copy(update={"spec": spec}), version.manifest, *base)
        run_id = run_id_of(self._event, number)
        task = spec.task if spec.task.has_labels else None
        tried = Tried(sweep_id=self._event.sweep_id, task=task)
        return replace(of_version, run_id=run_id, model_id=run_id, tried=tried)

    async def train(self, runs: Sequence[Run]) -> SweepProgressed:
        """Train the rounds. Raises RunFailed: a ceiling was reached, the sweep was cancelled, or every run
        failed."""
        await self._tell(self.measurements.state(SweepState.TRAINING))
        alive = list(runs)
        for this in rounds_of(self._event.method, len(runs)):
            if this.before:
                order = [one.run_id for one in ranked([*self.measurements.known.values()])]
                alive = sorted(alive, key=lambda run: order.index(run.run_id))[: this.recipes]
            await self._train_round(alive, this, self._trainings.at_once)
            alive = [run for run in alive if not self.measurements.known[run.run_id].reason]
            if not alive:
                failed = self.measurements.known[runs[0].run_id]
                raise RunFailed(field=failed.field, reason=failed.reason)
        return self.measurements.state(SweepState.COMPLETED)

    async def _train_round(self, runs: Sequence[Run], this: Round, lanes: int) -> None:
        """Measure each of ``runs``, ``lanes`` of them at once. If one ends the sweep, no other begins, and
        those that are being trained are measured."""
        waiting = deque[Run]()
        for run in runs:  # what was measured before a kill counts towards the ceilings
            found = await self.measurements.find(run.run_id, this.part)
            if found is None:
                waiting.append(run)
            else:
                await self._saw(this.part, found)

        async def lane() -> None:
            try:
                while waiting:
                    run = waiting.popleft()
                    limited = self._limited(run, this, len(waiting) + 1, alone=lanes == 1 or not waiting)
                    measured = await self._trained(limited, this.part)
                    found = await self.measurements.first(run.run_id, this.part, measured)
                    await self._saw(this.part, found)
            finally:
                waiting.clear()

        ended = await asyncio.gather(*(lane() for _ in range(lanes)), return_exceptions=True)
        errors = sorted((one for one in ended if one), key=lambda one: isinstance(one, RunFailed))
        if errors and lanes > 1 and isinstance(errors[0], RunFailed) and errors[0].field in CEILINGS:
            # its share of the ceiling was too small; alone it may use all that is left
            return await self._train_round(runs, this, 1)
        if errors:
            raise errors[0]

    async def _saw(self, part: float, found: Measured) -> None:
        self._lease.check()
        self.measurements.add(part, found)
        self._ceilings.release(found.run.run_id)
        await self._tell(self.measurements.state(SweepState.TRAINING))

    def _limited(self, run: Run, this: Round, unbegun: int, *, alone: bool) -> Run:
        """Return ``run``, which begins, with its ceilings: all that is left of the sweep's if it is
        ``alone``. Else its share by what is left to train; ``unbegun`` runs of this round have not begun."""
        known, step = self.measurements.known[run.run_id], this.part - this.before
        assert run.tried is not None
        left = unbegun * step + this.after
        share = 1.0 if alone else step / left
        ceilings = self._ceilings.hold(known, self.measurements.known.values(), share)
        told = {"part": this.part, "left": left * share, "spent_hours": known.seconds / 3600}
        recipe, tried = run.recipe.model_copy(update=ceilings), run.tried.model_copy(update=told)
        return replace(run, recipe=recipe, tried=tried)

    async def _trained(self, run: Run, part: float) -> Measured:
        known = self.measurements.known[run.run_id]
        try:
            result = await self._trainings.measure(run, self._lease)
        except RunFailed as error:
            self._lease.check()
            told = known.model_copy(update=cost_fields(error.plan, known.seconds + error.seconds))
            if error.field in (*CEILINGS, "(run)"):
                self.measurements.known[run.run_id] = told
                self._ceilings.release(run.run_id)
                raise
            return Measured(run=told.model_copy(update={"field": error.field, "reason": error.reason}))
        return measured_of(known, part, result)
