"""Events of one small project, as the registry would meet them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.formats.rollout_spec import CanaryPolicy, RolloutSpec, ShadowPolicy
from tunewheel_registry.decision import decide
from tunewheel_registry.lifecycle import apply
from tunewheel_registry.state import State
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.desk import Desk


class Log:
    """The state of a project, and every event that led to it."""

    def __init__(self, desk: Desk, *triggers: Envelope[Any]) -> None:
        self.desk, self.state = desk, State(desk.project)
        self.events: list[Any] = []
        self.play(*triggers)

    def play(self, *triggers: Envelope[Any]) -> list[Any]:
        """Return what the last of ``triggers`` led to."""
        decided: list[Any] = []
        for trigger in triggers:
            decided = list(decide(self.state, trigger, self.desk.rollout))
            for event in decided:
                self.state = apply(self.state, event)
            self.events += decided
        return decided

    def stages(self) -> dict[int, str]:
        numbered = {self.desk.model_id(n): n for n in range(10)}
        return {numbered[m]: one.stage.value for m, one in self.state.models.items() if m in numbered}


def rollout(
    *, shadow: bool = False, canary: bool = True, percent: int = 20, shadow_percent: int = 100
) -> RolloutSpec:
    return RolloutSpec(
        shadow=ShadowPolicy(enabled=shadow, percent=shadow_percent),
        canary=CanaryPolicy(enabled=canary, percent=percent),
    )


@pytest.fixture(name="desk")
def make_desk() -> Desk:
    return Desk()


@pytest.fixture
def wheel(desk: Desk, tmp_path: Path) -> Any:
    from .wheel import Wheel

    return Wheel(desk, ObjectStore((tmp_path / "store").as_uri()))


@pytest.fixture(name="make_desk", scope="session")
def make_desk_of() -> Any:
    """Return a maker of desks: ``make_desk(shadow=…, canary=…, percent=…, project=…)``."""

    def make(*, project: str = "desk", **policy: Any) -> Desk:
        return Desk(project=project, rollout=rollout(**policy))

    return make
