"""Routes: the desired state of serving of a project."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Frozen, Percent, Slug
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.reading import Reading, if_unknown


class RouteRole(StrEnum):
    PRODUCTION = "production"
    CANARY = "canary"
    SHADOW = "shadow"


LogPolicy = Annotated[Literal["full", "redacted", "hashed", "off"], if_unknown("off")]
"""How the texts of a completion are logged: in full, without personal data, as hashes, or not at all."""
Fault = Literal["client", "engine", "model"]
"""The party at fault for a failed request."""
ALIASES: Mapping[str, tuple[RouteRole, ...]] = MappingProxyType(
    {"champion": (RouteRole.PRODUCTION,), "challenger": (RouteRole.CANARY, RouteRole.SHADOW)}
)
"""Aliases of the model that has one of these roles."""


class Route(Frozen):
    model_id: Slug
    role: RouteRole
    percent: Percent
    """Share of requests answered (production, canary) or copied (shadow)."""
    adapter: AdapterRef | None
    """Null: the route serves the base model."""
    dataset_id: Slug | None = None
    bundle: Annotated[Bundle | None, Field(exclude_if=lambda bundle: bundle is None)] = None
    """The configuration with which the model was judged and is to be served; null: the model has no
    verdict."""


class DesiredRoutes(Frozen):
    """The routes of one project. The shares of production and canary add up to 100. A role has at most one
    route."""

    routes: Annotated[tuple[Route, ...], Field(max_length=3)]

    @model_validator(mode="after")
    def _adds_up(self, info: ValidationInfo) -> Self:
        left_out = info.context.unknown if isinstance(info.context, Reading) else ()
        production = next((r for r in self.routes if r.role is RouteRole.PRODUCTION), None)
        if production is None and any(f".{name}".endswith(".routes") for name in left_out):
            raise inconsistent("routes", "may lack production, which a newer release wrote; upgrade this one")
        answering = [r for r in self.routes if r.role is not RouteRole.SHADOW]
        missing = 100 - sum(r.percent for r in answering)
        if production is not None and missing > 0 and left_out:
            # A newer registry's route was left out. Production gets its requests, never a candidate.
            more = production.model_copy(update={"percent": production.percent + missing})
            return self.model_copy(
                update={"routes": tuple(more if r is production else r for r in self.routes)}
            )
        if answering and missing:
            raise inconsistent("routes", "of production and canary must add up to 100 percent")
        if len({r.role for r in self.routes}) != len(self.routes):
            raise inconsistent("routes", "name a role twice; keep one route per role")
        return self

    def model_id(self, name: str) -> str | None:
        """Return the model id for ``name``, which is an alias or a model id. None: no model has the alias's
        role; the base model does not count as champion."""
        roles = ALIASES.get(name)
        if roles is None:
            return name
        models = (r.model_id for r in self.routes if r.role in roles and r.adapter is not None)
        return next(models, None)
