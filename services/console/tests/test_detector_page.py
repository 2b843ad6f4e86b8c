"""The page of detectors, drawn by NiceGUI's simulated user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from nicegui import app, ui
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation
from tunewheel_console.detector_page import curve, draw_detectors, in_words, watched
from tunewheel_console.queue_list import Listing
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import ANYBODY, Caller, Grant, Role

PATIENT = 600
SILENT: dict[str, Any] = {
    "state": "silent", "windows": 0, "statistic": None, "usual": None, "effect": None, "floor": None,
    "p_value": None, "threshold": None, "series": {}, "slices": (),
}  # fmt: skip


@pytest.fixture
async def user(state: Any) -> AsyncIterator[User]:
    async def who() -> Caller:
        return ANYBODY

    def root() -> None:
        read = partial(watched, state, "desk")
        Listing(read, draw_detectors, ANYBODY, who, refresh_seconds=0.05).build(csrf=None, root="../")

    async with user_simulation(root=root) as simulated:
        yield simulated
    app.middleware_stack = None


async def test_the_nearest_detector_comes_first_and_is_drawn_anew_as_it_changes(
    user: User, state: Any, desk: Any
):
    await user.open("/")
    await user.should_see("No window of this project was judged yet.")
    state.apply(desk.declared())
    for event in (
        desk.watched("length"),
        desk.watched("novelty", state="near"),
        desk.watched("labels", **SILENT),
    ):
        state.judge(event)
    await user.should_see(marker="detector-novelty", retries=PATIENT)
    await user.should_see("by key: web 12.5% of 80")
    await user.should_see(marker="curve-length")
    await user.should_not_see(marker="curve-labels")
    assert [one.detector for one in await watched(state, "desk", ANYBODY)] == ["novelty", "length", "labels"]
    state.judge(desk.watched("length", state="alarm"))
    await user.should_see("alarm", retries=PATIENT)
    assert (await watched(state, "desk", ANYBODY))[0].detector == "length"
    with user:
        assert len(user.find(ui.echart).elements) == 2


async def test_who_may_not_read_a_project_sees_nothing_of_it(state: Any, desk: Any):
    state.apply(desk.declared())
    state.judge(desk.watched("novelty"))
    other = Caller(Principal(name="ann"), (Grant(frozenset({Role.VIEWER}), frozenset({"other"})),))
    assert await watched(state, "desk", other) == []
    assert await watched(state, "nope", ANYBODY) == []


def test_the_curve_shows_the_effect_over_time_and_the_floor(desk: Any):
    one = desk.watched("novelty", usual=None).data
    (series,) = curve(one)["series"]
    assert [value for _, value in series["data"]] == [0.01, 0.04]
    assert series["markLine"]["data"][0]["yAxis"] == 0.015
    assert "usually" not in in_words(one)[0]
