"""What the gateway should serve: one desired state per project, on a compacted topic."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Frozen, Percent, Slug
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef


class RouteRole(StrEnum):
    PRODUCTION = "production"
    CANARY = "canary"
    SHADOW = "shadow"


LogPolicy = Literal["full", "redacted", "hashed", "off"]
"""What of the texts of a completion goes on the log: all, all but personal data, hashes, or nothing."""
Fault = Literal["client", "engine", "model"]
"""Whose fault it is that a request failed."""
ALIASES: Mapping[str, tuple[RouteRole, ...]] = MappingProxyType(
    {"champion": (RouteRole.PRODUCTION,), "challenger": (RouteRole.CANARY, RouteRole.SHADOW)}
)
"""Names for whichever model has one of these roles."""


class Route(Frozen):
    model_id: Slug
    role: RouteRole
    percent: Percent
    """Share of requests answered (production, canary) or copied (shadow)."""
    adapter: AdapterRef | None
    """None: the bare base model."""
    dataset_id: Slug | None = None
    bundle: Annotated[Bundle | None, Field(exclude_if=lambda bundle: bundle is None)] = None
    """What was judged of the model, to be served as it was judged; None: nobody judged it."""


class DesiredRoutes(Frozen):
    """Routes of one project. Answering shares add up to 100; at most one route per role."""

    routes: Annotated[tuple[Route, ...], Field(max_length=3)]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        answering = [r for r in self.routes if r.role is not RouteRole.SHADOW]
        if answering and sum(r.percent for r in answering) != 100:
            raise inconsistent("routes", "of production and canary must add up to 100 percent")
        if len({r.role for r in self.routes}) != len(self.routes):
            raise inconsistent("routes", "name a role twice; keep one route per role")
        return self

    def model_id(self, name: str) -> str | None:
        """Return whom ``name`` means: the alias of a role, or the id itself; None: nobody has the role. The
        bare base is no champion."""
        roles = ALIASES.get(name)
        if roles is None:
            return name
        models = (r.model_id for r in self.routes if r.role in roles and r.adapter is not None)
        return next(models, None)
