# Generated from aio/models.py by scripts/client_sync.py; change that file instead.
"""Models, and the verdicts on their trials."""

from __future__ import annotations

from typing import Unpack

from tunewheel_contracts.api.commands import Accepted, ModelOrder
from tunewheel_contracts.api.models import ModelDetail, ModelSummary
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.rollouts import Rollout

from tunewheel_client.sync.resource import Paging, Resource


class Models(Resource):
    """The registered models of a project. ``champion`` and ``challenger`` name a model too.

    A command is obeyed by the registry later; ``client.commands.wait`` waits for its answer.
    """

    def list(self, project: str, *, state: str | None = None, **paging: Unpack[Paging]) -> Page[ModelSummary]:
        """Return a page of models, newest first; of those in the stage ``state`` where one is named."""
        return self._read(Page[ModelSummary], project, "models", state=state, **paging)

    def show(self, project: str, model_id: str) -> ModelDetail:
        """Return a model's stages and figures."""
        return self._read(ModelDetail, project, "models", model_id)

    def promote(self, project: str, model_id: str, *, reason: str, force: bool = False) -> Accepted:
        """Move a model to its next stage. ``force``: straight to production."""
        return self._command(project, model_id, "promote", reason, force)

    def rollback(self, project: str, model_id: str, *, reason: str, force: bool = False) -> Accepted:
        """Bring an earlier model back to production."""
        return self._command(project, model_id, "rollback", reason, force)

    def pin(self, project: str, model_id: str, *, reason: str) -> Accepted:
        """Let no other model replace this one until it is unpinned."""
        return self._command(project, model_id, "pin", reason)

    def unpin(self, project: str, model_id: str, *, reason: str) -> Accepted:
        """Let other models replace this one again."""
        return self._command(project, model_id, "unpin", reason)

    def retire(self, project: str, model_id: str, *, reason: str, force: bool = False) -> Accepted:
        """Take a model out of service."""
        return self._command(project, model_id, "retire", reason, force)

    def reject(self, project: str, model_id: str, *, reason: str, force: bool = False) -> Accepted:
        """Refuse a model that is not in production."""
        return self._command(project, model_id, "reject", reason, force)

    def stop(self, project: str, to: str = "champion", *, reason: str) -> Accepted:
        """Send all traffic to ``champion`` or ``base`` at once."""
        return self._command(project, to, "stop", reason)

    def _command(
        self, project: str, model_id: str, action: str, reason: str, force: bool = False
    ) -> Accepted:
        order = ModelOrder(reason=reason, force=force).model_dump(exclude_defaults=True)
        return self._order(project, "models", model_id, action, json=order)


class Rollouts(Resource):
    """The verdicts on shadow and canary stages of a project's models."""

    def list(self, project: str, **paging: Unpack[Paging]) -> Page[Rollout]:
        """Return a page of verdicts, newest first."""
        return self._read(Page[Rollout], project, "rollouts", **paging)
