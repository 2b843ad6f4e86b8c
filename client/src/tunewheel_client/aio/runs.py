"""Training runs and their evaluations."""

from __future__ import annotations

from typing import Unpack

from tunewheel_contracts.api.commands import Accepted
from tunewheel_contracts.api.evaluations import EvaluationDetail, EvaluationSummary
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.runs import RunDetail, RunSummary

from tunewheel_client.aio.resource import Paging, Resource


class Runs(Resource):
    """The training runs of a project."""

    async def list(
        self, project: str, *, state: str | None = None, **paging: Unpack[Paging]
    ) -> Page[RunSummary]:
        """Return a page of runs, newest first; of those in ``state`` where one is named."""
        return await self._read(Page[RunSummary], project, "runs", state=state, **paging)

    async def show(self, project: str, run_id: str) -> RunDetail:
        """Return a run's progress, its losses, its failure and its verdict."""
        return await self._read(RunDetail, project, "runs", run_id)

    async def pause(self, project: str, run_id: str) -> Accepted:
        """Pause a run after its present step."""
        return await self._order(project, "runs", run_id, "pause")

    async def resume(self, project: str, run_id: str) -> Accepted:
        """Let a paused run go on from its checkpoint."""
        return await self._order(project, "runs", run_id, "resume")

    async def cancel(self, project: str, run_id: str) -> Accepted:
        """End a run for good."""
        return await self._order(project, "runs", run_id, "cancel")

    async def scorecard(self, project: str, run_id: str) -> str:
        """Return the page, as HTML, of the run's last verdict.

        Raises:
            Conflict: a review of the project's answers is open, and the page would say whose are whose.
        """
        answer = await self._transport.send("GET", "projects", project, "runs", run_id, "scorecard")
        return answer.text


class Evaluations(Resource):
    """The evaluations of a project's runs."""

    async def list(self, project: str, **paging: Unpack[Paging]) -> Page[EvaluationSummary]:
        """Return a page of evaluations, newest first."""
        return await self._read(Page[EvaluationSummary], project, "evaluations", **paging)

    async def show(self, project: str, evaluation_id: str) -> EvaluationDetail:
        """Return an evaluation with its scorecard."""
        return await self._read(EvaluationDetail, project, "evaluations", evaluation_id)
