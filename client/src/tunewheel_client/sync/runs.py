# Generated from aio/runs.py by scripts/client_sync.py; change that file instead.
"""Training runs and their evaluations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from tunewheel_contracts.api.commands import EvaluationOrdered, RunOrdered
from tunewheel_contracts.api.evaluations import EvaluationDetail, EvaluationSummary
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.runs import RunDetail, RunSummary
from tunewheel_contracts.formats.run import RunManifest

from tunewheel_client.sync.resource import Paging, Resource


class Runs(Resource):
    """The training runs of a project."""

    def list(
        self,
        project: str,
        *,
        state: str | None = None,
        dataset_id: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[RunSummary]:
        """Return a page of runs, newest first; of those in ``state``, and of one version, where named."""
        return self._read(Page[RunSummary], project, "runs", state=state, dataset_id=dataset_id, **paging)

    def show(self, project: str, run_id: str) -> RunDetail:
        """Return a run's progress, its losses, its failure and its verdict."""
        return self._read(RunDetail, project, "runs", run_id)

    def manifest(self, project: str, run_id: str) -> RunManifest:
        """Return how a completed run was trained, and the files of its model.

        Raises:
            Conflict: the run has no model.
        """
        return self._read(RunManifest, project, "runs", run_id, "manifest")

    def download(self, project: str, run_id: str, name: str, to: Path) -> str:
        """Write the file ``name`` of a run's model to ``to``; return the hash (SHA-256) of what was written,
        which the manifest tells too."""
        path = ("projects", project, "runs", run_id, "files", name)
        with to.open("wb") as file:
            digest = hashlib.sha256()
            with self._transport.stream(*path) as answer:
                for part in answer.iter_bytes():
                    digest.update(part)
                    file.write(part)
        return digest.hexdigest()

    def pause(self, project: str, run_id: str, *, request: str | None = None) -> RunOrdered:
        """Pause a run after its present step."""
        return self._order(RunOrdered, project, "runs", run_id, "pause", order={"request": request})

    def resume(self, project: str, run_id: str, *, request: str | None = None) -> RunOrdered:
        """Let a paused run go on from its checkpoint."""
        return self._order(RunOrdered, project, "runs", run_id, "resume", order={"request": request})

    def cancel(self, project: str, run_id: str, *, request: str | None = None) -> RunOrdered:
        """End a run for good."""
        return self._order(RunOrdered, project, "runs", run_id, "cancel", order={"request": request})

    def evaluate(
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
        return self._order(EvaluationOrdered, project, "runs", run_id, "evaluations", order=told)

    def scorecard(self, project: str, run_id: str) -> str:
        """Return the page, as HTML, of the run's last verdict.

        Raises:
            Conflict: a review of the project's answers is open, and the page would say whose are whose.
        """
        answer = self._transport.send("GET", "projects", project, "runs", run_id, "scorecard")
        return answer.text


class Evaluations(Resource):
    """The evaluations of a project's runs."""

    def list(
        self,
        project: str,
        *,
        outcome: str | None = None,
        run_id: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[EvaluationSummary]:
        """Return a page of evaluations, newest first; of those with ``outcome``, and of one run, where
        named."""
        return self._read(
            Page[EvaluationSummary], project, "evaluations", outcome=outcome, run_id=run_id, **paging
        )

    def show(self, project: str, evaluation_id: str) -> EvaluationDetail:
        """Return an evaluation with its scorecard."""
        return self._read(EvaluationDetail, project, "evaluations", evaluation_id)
