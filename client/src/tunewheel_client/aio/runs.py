"""Training runs and their evaluations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

from tunewheel_contracts.api.commands import EvaluationOrdered, RunOrdered, SweepOrdered
from tunewheel_contracts.api.evaluations import EvaluationDetail, EvaluationLabels, EvaluationSummary
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.runs import RunComparison, RunDetail, RunSummary, SweepDetail
from tunewheel_contracts.formats.generations import Generation
from tunewheel_contracts.formats.run import RunManifest

from tunewheel_client.aio.resource import Paging, Resource


class Runs(Resource):
    """The training runs of a project."""

    async def list(
        self,
        project: str,
        *,
        state: str | None = None,
        dataset_id: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[RunSummary]:
        """Return a page of runs, newest first; of those in ``state``, and of one version, where named."""
        return await self._read(
            Page[RunSummary], project, "runs", state=state, dataset_id=dataset_id, **paging
        )

    async def show(self, project: str, run_id: str) -> RunDetail:
        """Return a run's progress, its losses, its failure and its verdict."""
        return await self._read(RunDetail, project, "runs", run_id)

    async def compare(self, project: str, *, compare: Sequence[str]) -> RunComparison:
        """Return two to six runs, the fields of their recipes that differ, and their candidates' figures."""
        return await self._read(RunComparison, project, "runs", "comparison", compare=",".join(compare))

    async def manifest(self, project: str, run_id: str) -> RunManifest:
        """Return how a completed run was trained, and the files of its model.

        Raises:
            Conflict: the run has no model.
        """
        return await self._read(RunManifest, project, "runs", run_id, "manifest")

    async def download(self, project: str, run_id: str, name: str, to: Path) -> str:
        """Write the file ``name`` of a run's model to ``to``; return the hash (SHA-256) of what was written,
        which the manifest tells too."""
        path = ("projects", project, "runs", run_id, "files", name)
        with to.open("wb") as file:
            digest = hashlib.sha256()
            async with self._transport.stream(*path) as answer:
                async for part in answer.aiter_bytes():
                    digest.update(part)
                    file.write(part)
        return digest.hexdigest()

    async def pause(self, project: str, run_id: str, *, request: str | None = None) -> RunOrdered:
        """Pause a run after its present step."""
        return await self._order(RunOrdered, project, "runs", run_id, "pause", order={"request": request})

    async def resume(self, project: str, run_id: str, *, request: str | None = None) -> RunOrdered:
        """Let a paused run go on from its checkpoint."""
        return await self._order(RunOrdered, project, "runs", run_id, "resume", order={"request": request})

    async def cancel(self, project: str, run_id: str, *, request: str | None = None) -> RunOrdered:
        """End a run for good."""
        return await self._order(RunOrdered, project, "runs", run_id, "cancel", order={"request": request})

    async def evaluate(
        self,
        project: str,
        run_id: str,
        *,
        criteria: Sequence[Mapping[str, Any]] = (),
        dataset_id: str | None = None,
        reason: str = "",
        request: str | None = None,
    ) -> EvaluationOrdered:
        """Evaluate a run once more, against the model in production now.

        Args:
            criteria: others than those declared before the training. The scorecard then informs only.
            dataset_id: the version whose held-out rows are used, where the run did not train on them.
        """
        told = {"criteria": list(criteria), "dataset_id": dataset_id, "reason": reason, "request": request}
        return await self._order(EvaluationOrdered, project, "runs", run_id, "evaluations", order=told)

    async def scorecard(self, project: str, run_id: str) -> str:
        """Return the page, as HTML, of the run's last verdict.

        Raises:
            Conflict: a review of the project's answers is open, and the page would say whose are whose.
        """
        answer = await self._transport.send("GET", "projects", project, "runs", run_id, "scorecard")
        return answer.text


class Sweeps(Resource):
    """Recipes that are tried on a dataset version before the wheel turns with them."""

    async def list(self, project: str, **paging: Unpack[Paging]) -> Page[SweepDetail]:
        """Return a page of sweeps, newest first."""
        return await self._read(Page[SweepDetail], project, "sweeps", **paging)

    async def show(self, project: str, sweep_id: str) -> SweepDetail:
        """Return how far each recipe was trained, and what it reached on the validation rows."""
        return await self._read(SweepDetail, project, "sweeps", sweep_id)

    async def order(
        self,
        project: str,
        *,
        dataset_id: str,
        recipes: Sequence[Mapping[str, Any]],
        method: Literal["grid", "halving"] = "grid",
        max_hours: float = 1.0,
        max_dollars: float | None = None,
        request: str | None = None,
    ) -> SweepOrdered:
        """Try recipes on a dataset version. ``runs.cancel`` with the sweep's id ends all of them.

        Args:
            recipes: of each recipe the fields that differ from that of the version's spec.
            max_hours, max_dollars: of all runs together; hours are those of training.

        Raises:
            Refused: a field of a recipe is unknown or has a wrong value.
        """
        told = {
            "dataset_id": dataset_id, "recipes": list(recipes), "method": method, "max_hours": max_hours,
            "max_dollars": max_dollars, "request": request,
        }  # fmt: skip
        return await self._order(SweepOrdered, project, "sweeps", order=told)


class Evaluations(Resource):
    """The evaluations of a project's runs."""

    async def list(
        self,
        project: str,
        *,
        outcome: str | None = None,
        run_id: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[EvaluationSummary]:
        """Return a page of evaluations, newest first; of those with ``outcome``, and of one run, where
        named."""
        return await self._read(
            Page[EvaluationSummary], project, "evaluations", outcome=outcome, run_id=run_id, **paging
        )

    async def show(self, project: str, evaluation_id: str) -> EvaluationDetail:
        """Return an evaluation with its scorecard."""
        return await self._read(EvaluationDetail, project, "evaluations", evaluation_id)

    async def rows(
        self,
        project: str,
        evaluation_id: str,
        *,
        difference: Literal["candidate_worse", "candidate_better"] | None = None,
        metric: str | None = None,
        against: Literal["base", "champion", "candidate"] | None = None,
        label: str | None = None,
        answered: str | None = None,
        unlabelled: bool = False,
        role: Literal["base", "champion", "candidate"] | None = None,
        **paging: Unpack[Paging],
    ) -> Page[Generation]:
        """Return a page of the held-out rows with all contestants' answers.

        Args:
            difference: only rows on which the candidate is so, by ``metric``, than ``against``.
            label: only rows with this expected label.
            answered, unlabelled: only rows that ``role``, the candidate, answered so.
        """
        asked = {
            "difference": difference, "metric": metric, "against": against, "label": label,
            "answered": answered, "unlabelled": unlabelled or None, "role": role,
        }  # fmt: skip
        return await self._read(
            Page[Generation], project, "evaluations", evaluation_id, "rows", **asked, **paging
        )

    async def labels(self, project: str, evaluation_id: str) -> EvaluationLabels:
        """Return how many rows of each expected label were answered with which label."""
        return await self._read(EvaluationLabels, project, "evaluations", evaluation_id, "labels")
