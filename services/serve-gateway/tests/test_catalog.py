"""The desired state that a gateway takes from the log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.formats.serving import DesiredRoutes, Route, RouteRole
from tunewheel_contracts.topics import SERVING_DESIRED
from tunewheel_serve_gateway.catalog import Catalog
from tunewheel_testing.adapters import BASE
from tunewheel_testing.log import wrap


def desired(generation: int, model: str, *, cause: str, prompt: str = "p", **more: int) -> Envelope[Any]:
    """``model`` in production, and the models in ``more`` as canaries of that share."""
    shares = [(model, RouteRole.PRODUCTION, 100 - sum(more.values()))]
    shares += [(name, RouteRole.CANARY, share) for name, share in more.items()]
    routes = tuple(
        Route(model_id=name, role=role, percent=share, adapter=None) for name, role, share in shares
    )
    event = ServingDesired(
        project="desk",
        generation=generation,
        base=BASE,
        system_prompt=prompt,
        desired=DesiredRoutes(routes=routes),
    )
    return replace(wrap(event), causation_id=cause)


def taken(catalog: Catalog, event: Envelope[Any]) -> str | None:
    """Return the standing refusal after ``event``."""
    catalog.take(event)
    return catalog.refusals.get(event.project)


def served(catalog: Catalog) -> list[tuple[str, int]]:
    return [(route.model_id, route.percent) for route in catalog.projects()[0].routes]


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_decisions_with_one_generation_the_later_one_counts_and_a_newer_one_ends_the_warning(
    first: int,
):
    """Whichever arrives first."""
    catalog, both = Catalog(), [desired(4, model, cause=model) for model in ("stalled", "active")]
    assert taken(catalog, both[first]) is None
    for event in (both[1 - first], *both, desired(3, "old", cause="old")):
        refusal = str(taken(catalog, event))
        assert served(catalog) == [("active", 100)]
        assert f"{both[1].id} serve" in refusal
        assert f"{both[0].id} are refused" in refusal
    assert taken(catalog, desired(5, "c", cause="c")) is None
    assert served(catalog) == [("c", 100)]


def test_a_redelivery_and_a_newly_declared_spec_are_no_second_decision():
    catalog = Catalog()
    for event in (
        desired(4, "a", cause="1", b=10),
        desired(4, "a", cause="1", b=10),
        desired(4, "a", cause="a later verdict that changed nothing", b=10),
        desired(4, "a", cause="a declaration", prompt="other", b=30),
    ):
        assert taken(catalog, event) is None
    assert served(catalog) == [("a", 70), ("b", 30)]


async def test_a_refused_decision_is_a_standing_warning(make_world: Any):
    world = await make_world()
    for model in ("base-0", "base-1"):
        world.tell(desired(4, model, cause=model))
    assert "two registries" in str(world.warnings["desired_refused desk"])
    world.gateway.remove(SERVING_DESIRED, "desk")
    assert world.warnings["desired_refused desk"] is None
