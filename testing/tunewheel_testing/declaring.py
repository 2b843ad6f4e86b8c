"""Puts a spec and requests for erasure on the log without a console, for tests of other services."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested, ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Principal

from tunewheel_testing.forgetting import Outcome, wait_for_holders
from tunewheel_testing.sender import publish


async def declare(
    spec: ProjectSpec, options: Mapping[str, Any], principal: Principal | None = None
) -> Envelope[ProjectDeclared]:
    """Publish a spec. Declaring the same spec again gives the same event."""
    declared = ProjectDeclared(project=spec.project, spec=spec, principal=principal)
    return (await publish(options, declared))[0]


async def forget(
    options: Mapping[str, Any], project: str, customer: str, *, name: str = "letter", seconds: float = 0.0
) -> Outcome:
    """Ask for the erasure of a person, and wait for the holders so many seconds."""
    data = ErasureRequested(
        project=project, erasure_id=name, customer=customer, requested_by="privacy",
        requested_at=datetime.now(UTC),
    )  # fmt: skip
    (requested,) = await publish(options, data)
    return await wait_for_holders(options, Outcome(project, name, requested.id), timeout_seconds=seconds)
