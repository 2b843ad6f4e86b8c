"""Models, and the verdicts on their trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, Unpack

from tunewheel_contracts.api.commands import ModelOrdered
from tunewheel_contracts.api.models import ModelDetail, ModelSummary, Rollout
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.playground import Playground

from tunewheel_client.aio.resource import Paging, Resource

TRY_SECONDS = 90.0
"""How much longer several answers may take than another request."""


class Named(TypedDict, total=False):
    """``request``: the caller's name of the command. ``generation``: of the serving state on which it is
    based; the registry refuses a command on an older one. Default: the newest that the console knows."""

    request: str
    generation: int


class Force(Named, total=False):
    """``force``: also where the registry would refuse, because the model has not passed its stages."""

    force: bool


class Models(Resource):
    """The registered models of a project. ``champion`` and ``challenger`` name a model too."""

    async def list(
        self,
        project: str,
        *,
        stage: str | None = None,
        kind: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[ModelSummary]:
        """Return a page of models, newest first; of those in ``stage``, and of a ``kind``, where named."""
        return await self._read(Page[ModelSummary], project, "models", state=stage, kind=kind, **paging)

    async def show(self, project: str, model_id: str) -> ModelDetail:
        """Return a model's stages and figures."""
        return await self._read(ModelDetail, project, "models", model_id)

    async def card(self, project: str, model_id: str) -> str:
        """Return a model's card in the Hugging Face hub's format: Markdown with metadata in YAML."""
        answer = await self._transport.send("GET", "projects", project, "models", model_id, "card")
        return answer.text

    async def compare(self, project: str, model_id: str, other: str) -> dict[str, Any]:
        """Return what changed from ``model_id`` to ``other``, as the registry tells it."""
        steps = ("projects", project, "models", model_id, "comparison", other)
        return (await self._transport.send("GET", *steps)).json()

    async def lineage(self, project: str, name: str, *, records: int | None = None) -> dict[str, Any]:
        """Return all ancestors and descendants of ``name``: a record, a version, a run or a model.
        ``records``: the most records to list."""
        steps = ("projects", project, "lineage", name)
        return (await self._transport.send("GET", *steps, query={"records": records})).json()

    async def try_out(
        self,
        project: str,
        prompt: str,
        *,
        candidate: str | None = None,
        passages: Literal["with", "without", "both"] = "both",
        max_tokens: int | None = None,
    ) -> Playground:
        """Let base, champion and candidate answer one prompt. It counts as nobody's traffic.

        Args:
            candidate: id of a model. Default: the one on trial, else the newest that waits.
            max_tokens: of each answer. Default: as the model is served.
        """
        told = {"prompt": prompt, "candidate": candidate, "passages": passages, "max_tokens": max_tokens}
        body = {name: value for name, value in told.items() if value is not None}
        steps = (project, "playground")
        return await self._send(Playground, "POST", *steps, json=body, extra_seconds=TRY_SECONDS)

    async def promote(
        self, project: str, model_id: str, *, reason: str, **more: Unpack[Force]
    ) -> ModelOrdered:
        """Move a model to its next stage."""
        return await self._command(project, model_id, "promote", reason, more)

    async def rollback(
        self, project: str, model_id: str, *, reason: str, **more: Unpack[Force]
    ) -> ModelOrdered:
        """Bring an earlier model back to production."""
        return await self._command(project, model_id, "rollback", reason, more)

    async def pin(self, project: str, model_id: str, *, reason: str, **more: Unpack[Named]) -> ModelOrdered:
        """Let no other model replace this one until it is unpinned."""
        return await self._command(project, model_id, "pin", reason, more)

    async def unpin(self, project: str, model_id: str, *, reason: str, **more: Unpack[Named]) -> ModelOrdered:
        """Let other models replace this one again."""
        return await self._command(project, model_id, "unpin", reason, more)

    async def retire(
        self, project: str, model_id: str, *, reason: str, **more: Unpack[Force]
    ) -> ModelOrdered:
        """Take a model out of service."""
        return await self._command(project, model_id, "retire", reason, more)

    async def reject(
        self, project: str, model_id: str, *, reason: str, **more: Unpack[Force]
    ) -> ModelOrdered:
        """Refuse a model that is not in production."""
        return await self._command(project, model_id, "reject", reason, more)

    async def stop(
        self, project: str, to: str = "champion", *, reason: str, **more: Unpack[Named]
    ) -> ModelOrdered:
        """Send all traffic to ``champion`` or ``base`` at once."""
        return await self._command(project, to, "stop", reason, more)

    async def _command(
        self, project: str, model_id: str, action: str, reason: str, more: Mapping[str, Any]
    ) -> ModelOrdered:
        return await self._order(
            ModelOrdered, project, "models", model_id, action, order={"reason": reason, **more}
        )


class Rollouts(Resource):
    """The verdicts on shadow and canary stages of a project's models."""

    async def list(
        self,
        project: str,
        *,
        verdict: str | None = None,
        model_id: str | None = None,
        **paging: Unpack[Paging],
    ) -> Page[Rollout]:
        """Return a page of verdicts, newest first; of those that are ``verdict``, and on one model, where
        named."""
        return await self._read(
            Page[Rollout], project, "rollouts", verdict=verdict, model_id=model_id, **paging
        )
