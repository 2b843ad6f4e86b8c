"""Runs one evaluation from the event to the verdict: plan, download, measure, judge, store."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

import structlog
from opentelemetry.metrics import NoOpMeter
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.evaluation_plan import Champion, EvaluationPlan
from tunewheel_contracts.formats.scorecard import Role, Scorecard
from tunewheel_runtime.attempts import Attempts, AttemptsSpent
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ArtifactConflict, ObjectStore

from tunewheel_eval.artifacts import RegressionSet, keep_measurement, read_holdout
from tunewheel_eval.contest import Contest, asked_for, known_of, prepare_job
from tunewheel_eval.errors import PassagesAway, UnfitCandidate, WorkerFailed
from tunewheel_eval.forgetting import Erased
from tunewheel_eval.job import Progress
from tunewheel_eval.judges.asking import Judges
from tunewheel_eval.judges.judged import ReviewedPairs
from tunewheel_eval.judging import Judge
from tunewheel_eval.lm_eval_tasks import read_asked
from tunewheel_eval.looks import Looks
from tunewheel_eval.measured import Measured
from tunewheel_eval.measurement import Measurement, read_measurement
from tunewheel_eval.metrics import about_passages
from tunewheel_eval.page import make_page
from tunewheel_eval.passages.looking_up import LookUp
from tunewheel_eval.plan import make_plan, pin, read_manifest, read_plan
from tunewheel_eval.replanning import standing_plan
from tunewheel_eval.requests import Asked, plan_again
from tunewheel_eval.reviews import after_review, read_scorecard
from tunewheel_eval.scorecards import Verdict, refusal, verdict_of, worn_out
from tunewheel_eval.settings import Settings
from tunewheel_eval.unseen import unseen
from tunewheel_eval.worker_process import WORKER, Stopped, run_worker

log = structlog.get_logger(__name__)
_SHRINK = 4
"""Each further attempt divides the batch size by this, since memory may have been short."""


class Evaluator:
    """Evaluates runs. Between two evaluations it keeps in memory only what rows have spent."""

    def __init__(
        self,
        store: ObjectStore,
        settings: Settings,
        erased: Erased,
        *,
        worker: Sequence[str] = WORKER,
        metrics: Measured | None = None,
    ) -> None:
        self._metrics = metrics or Measured(NoOpMeter("eval"))
        self._store, self._settings, self._worker = store, settings, worker
        self._erased = erased
        self._attempts = Attempts(store, "eval", limit=settings.eval_attempts)
        self._regression = RegressionSet(store)
        self._looks = Looks(store)
        allowed = AllowedSources(hosts=settings.spec_hosts)
        self._look_up = LookUp(store, allowed)
        self.judges = Judges(store, allowed)
        self._people = ReviewedPairs(store)
        self._judge = Judge(store, self._looks, settings.eval_dtype, self.judges, self._people)
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        """By ``scorecard_id``: held while it is made."""

    async def prepare(self) -> None:
        """Read the regression set. Raises ValueError if it is malformed, which stops the service."""
        await self._regression.take(self._settings.eval_regression_set)
        await self.sweep()

    async def close(self) -> None:
        """Close connections."""
        await self._look_up.close()

    async def evaluate(
        self,
        event: TrainCompleted,
        champion: Champion | None,
        lease: Lease,
        *,
        index: IndexVersioned | None = None,
        spent: float = 0.0,
    ) -> Verdict:
        """Return the verdict on the run that ``event`` completed. Every delivery of the event gives the same
        verdict. ``index`` is the project's newest index version. ``spent``: see ``make_plan``.

        Raises:
            InvalidEvent: the event or the dataset's manifest is wrong.
            LeaseLost: the partition moved. Measured rows are kept for the next owner.
            PassagesAway: the verdict depends on passages that cannot be looked up now.
            TransientError: the object store cannot be reached.
        """
        manifest = await read_manifest(self._store, event.dataset)
        plan = make_plan(
            event,
            manifest,
            champion,
            regression=self._regression.ref,
            precision=self._settings.eval_dtype,
            index=index,
            spent=spent,
        )
        plan = await standing_plan(self._store, await pin(self._store, plan), manifest, index)
        return await self._verdict(plan, manifest, lease)

    async def evaluate_again(self, asked: Asked, lease: Lease) -> tuple[EvaluationPlan, Verdict | None]:
        """Return the evaluation that a request leads to, and its verdict. The verdict is None if the
        scorecard only informs: see ``EvaluationPlan.informs``.

        Raises: see ``evaluate`` and ``plan_again``.
        """
        plan, manifest = await plan_again(
            self._store,
            asked,
            self._look_up,
            self._people,
            regression=self._regression.ref,
            precision=self._settings.eval_dtype,
        )
        plan = await standing_plan(self._store, plan, manifest, asked.index)
        verdict = await self._verdict(plan, manifest, lease)
        if plan.informs is None:
            return plan, await after_review(self._store, plan, verdict)
        log.info(
            "informed", run_id=plan.run_id, evaluation_id=plan.evaluation_id, scorecard=plan.scorecard_path
        )
        return plan, None

    async def _verdict(self, plan: EvaluationPlan, manifest: DatasetManifest, lease: Lease) -> Verdict:
        turn = self._turns.setdefault(plan.scorecard_id, asyncio.Lock())
        async with turn:  # several events may lead to one evaluation, which has one folder
            stored = await read_scorecard(self._store, plan)
            if stored is None:
                contest = await self._contest(plan, manifest)
                try:
                    scorecard = await self._play(contest, lease)
                finally:
                    self._metrics.over(plan.scorecard_id)
                stored = await self._keep(plan, scorecard)
        await self._show(plan, stored[0])
        await self.sweep()
        return verdict_of(plan, *stored)

    async def _show(self, plan: EvaluationPlan, scorecard: Scorecard) -> None:
        """Make and store the page. A failure here must not prevent the verdict."""
        if await self._store.exists(plan.page_path):
            return
        try:
            page = await make_page(self._store, plan, scorecard)
        except TransientError:
            raise
        except Exception:
            log.exception("page_not_drawn", scorecard_id=plan.scorecard_id)
            return
        await self._store.replace(plan.page_path, page)

    async def sweep(self) -> None:
        """Remove the work directories of all judged runs, including those whose lease moved away."""
        root = self._settings.work_for("eval")
        for directory in await asyncio.to_thread(lambda: list(root.glob("*"))):
            if await self._store.exists(f"scorecards/{directory.name}.json"):
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _contest(self, plan: EvaluationPlan, manifest: DatasetManifest) -> Contest:
        source = manifest if plan.rows is None else await read_manifest(self._store, plan.rows)
        held_out = await read_holdout(self._store, source.holdout)
        examples = held_out = await self._erased.left_of(held_out, plan.project, plan.rows_of, self._store)
        if plan.rows is not None:
            champion = plan.champion.dataset_id if plan.champion else None
            examples = await unseen(self._store, held_out, own=manifest, champion=champion)
        fresh = await self._looks.fresh(
            examples, project=plan.project, scorecard_id=plan.scorecard_id, of=manifest.spec.evaluation.looks
        )
        directory = self._settings.work_for("eval") / plan.scorecard_id
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        items = await self._regression.items(plan.regression)
        tasks = await read_asked(self._store, manifest.spec)
        first = await read_plan(self._store, plan.run_id)
        looked = await self._look_up.of(
            plan,
            manifest.spec.retrieval,
            fresh.examples,
            before=manifest.index or (first.index if first is not None else None),
            needed=bool(about_passages(asked_for(plan, manifest), manifest.spec.retrieval)),
        )
        left_out = len(held_out) - len(examples)
        return Contest(plan, manifest, fresh, items, directory, tasks, looked, left_out)

    async def _play(self, contest: Contest, lease: Lease) -> Scorecard:
        scorecard: Scorecard | None = None
        while scorecard is None:
            try:
                scorecard = await self._attempt(contest, lease)
            except WorkerFailed:
                self._metrics.add("processes.died")
                continue  # ``Attempts`` has counted and logged the failure
            except UnfitCandidate as fault:
                scorecard = refusal(contest.plan, fault)
            except AttemptsSpent as spent:
                fault = UnfitCandidate(field="(evaluation)", reason=str(spent))
                scorecard = refusal(contest.plan, fault)
        lease.check()
        return scorecard

    async def _attempt(self, contest: Contest, lease: Lease) -> Scorecard:
        """Measure and judge once. Attempts are counted per starting row, so an attempt that made progress
        before it died does not use up the limit.

        Raises:
            AttemptsSpent: this was the last attempt, or no attempt was left.
            UnfitCandidate: no example is left to measure on, or see ``run_worker``.
        """
        if not contest.examples and (contest.fresh.spent or contest.trained_on):
            return worn_out(contest.plan)
        if not contest.examples:
            raise UnfitCandidate(
                field="dataset.holdout",
                reason="every held-out example was erased; build another version and train on it",
            )
        begins_at = await asyncio.to_thread(contest.rows_written)
        job = f"{contest.plan.scorecard_id} from row {begins_at}"
        async with self._attempts.begin(job, spared=(UnfitCandidate, InvalidEvent, PassagesAway)) as number:
            earlier = await known_of(contest, self._store, self._settings)
            if all(one.covers(contest.keys_of(role)) for role, one in earlier.items()):
                return await self._judge.scorecard(contest, earlier, {}, check=lease.check)
            seconds = await self._measure(contest, earlier, lease, attempt=number)
            measured = {role: await asyncio.to_thread(_read, contest, role) for role in earlier}
            return await self._judge.scorecard(contest, measured, seconds, check=lease.check)

    async def _measure(
        self, contest: Contest, earlier: Mapping[Role, Measurement], lease: Lease, *, attempt: int
    ) -> dict[str, float]:
        """Run the measuring process on the items that are not ``earlier``; return seconds by contestant."""
        job = await prepare_job(contest, earlier, self._store, self._settings)
        batch = max(1, job.batch_size // _SHRINK ** (attempt - 1))
        job = job.model_copy(update={"batch_size": batch})
        await asyncio.to_thread(contest.job_path.write_text, job.model_dump_json(), "utf-8")
        seconds: dict[str, float] = {}

        async def on_progress(progress: Progress) -> None:
            log.info("measured", run_id=contest.plan.run_id, **progress.model_dump(mode="json"))
            seconds[progress.role.value] = progress.seconds
            self._metrics.saw(progress, contest.plan.scorecard_id)
            if progress.done == progress.total:
                measurement = await asyncio.to_thread(_read, contest, progress.role)
                await keep_measurement(self._store, measurement, dataset_id=contest.plan.rows_of)

        try:
            await run_worker(contest.job_path, lost=lease.lost, on_progress=on_progress, worker=self._worker)
        except Stopped:
            lease.check()
            raise
        return seconds

    async def _keep(self, plan: EvaluationPlan, scorecard: Scorecard) -> tuple[Scorecard, ArtifactRef]:
        data = scorecard.model_dump_json(indent=1).encode()
        try:
            return scorecard, await self._store.put(plan.scorecard_path, data)
        except ArtifactConflict:
            # Another worker stored its scorecard first. A run has one scorecard, so return that one.
            stored = await read_scorecard(self._store, plan)
            if stored is None:
                raise
            return stored


def _read(contest: Contest, role: Role) -> Measurement:
    measurement = read_measurement(contest.rows(role).read_text("utf-8"))
    if measurement is None:
        raise WorkerFailed(f"{contest.rows(role)} has no header although the worker finished")
    return measurement.only(contest.keys_of(role))
