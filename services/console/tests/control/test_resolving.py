"""Paths name a thing by its id, by a unique beginning of it, or by ``latest``."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_console.control.resolving import resolve
from tunewheel_runtime.refusals import Refused

IDS = ("run-abcdef", "run-abczzz", "run-xyz123")


@pytest.mark.parametrize(
    ("asked", "found"),
    [("run-abcdef", IDS[0]), ("run-abcd", IDS[0]), ("run-xy", IDS[2]), ("latest", IDS[0])],
)
def test_an_id_a_unique_beginning_and_latest_name_one(asked: str, found: str):
    assert resolve(asked, IDS, field="run_id", project="desk") == found


def test_an_id_that_is_the_beginning_of_another_names_itself():
    assert resolve("run-1234", ("run-12345", "run-1234"), field="run_id", project="desk") == "run-1234"


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ("run-abc", 409, ("run-abcdef", "run-abczzz")),
        ("run-x", 404, ("6 characters",)),
        ("ds-123456", 404, ("/v1/projects/desk/runs",)),
    ],
)
def test_a_refusal_names_field_and_fix(asked: str, status: int, words: tuple[str, ...]):
    with pytest.raises(Refused) as refused:
        resolve(asked, IDS, field="run_id", project="desk")
    assert (refused.value.status, refused.value.field) == (status, "run_id")
    assert all(word in str(refused.value) for word in words)


def test_there_is_no_latest_of_nothing():
    with pytest.raises(Refused, match="has no run 'latest'"):
        resolve("latest", (), field="run_id", project="desk")


async def test_a_run_is_found_by_its_beginning_over_http(state: Any, desk: Any, ask: Any):
    desk.run_id = "run-0a1b2c3d4e5f"
    state.apply(desk.started())
    for asked in ("run-0a1b2c3d4e5f", "run-0a", "latest"):
        assert (await ask(f"/projects/desk/runs/{asked}")).json()["run_id"] == "run-0a1b2c3d4e5f"
