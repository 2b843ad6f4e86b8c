"""The audit trail: each command with its principal, time, door and outcome."""

from __future__ import annotations

import base64
import csv
import io
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tunewheel_console.actions import Actions
from tunewheel_console.control.commands import entry_of
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Role
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.log import MemoryLog

SINCE = "2026-01-02T00:00:00Z"


@pytest.fixture(autouse=True)
async def commands(state: Any, desk: Any, door: Any) -> None:
    state.apply(desk.started())
    state.apply(desk.promoted())
    await door.send("POST", "projects/desk/runs/run-1/pause")
    door.principal = Principal(name="bob", issuer="https://login.example.org")
    await door.send("POST", f"projects/desk/models/{desk.model_id()}/rollback", {"reason": "refunds"})
    head = base64.urlsafe_b64encode(b'{"alg":"Ed25519","kid":"console-1"}').decode().rstrip("=")
    told = {"run_id": "run-9", "action": "cancel", "request": "r", "signature": f"{head}.e30.c2ln"}
    state.apply(desk.say("train.control", **told))


async def test_every_command_is_listed_newest_first(desk: Any, door: Any):
    listed = (await door.send("GET", "audit")).json()
    first, second = listed["items"][:2]
    assert (listed["total"], first["principal"], second["principal"]) == (3, "bob", "ann")
    assert (first["action"], first["target"], first["state"]) == ("rollback", desk.model_id(), "waiting")
    assert (first["issuer"], first["door"]) == ("https://login.example.org", "/test")
    assert (second["type"], second["state"]) == ("train.control", "done")
    assert [one["signed_by"] for one in listed["items"]] == [None, None, "console-1"]


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ({"principal": "ann"}, 1),
        ({"project": "shop"}, 0),
        ({"since": SINCE}, 2),
        ({"limit": 1}, 3),
    ],
)
async def test_the_trail_is_filtered(door: Any, query: dict[str, Any], total: int):
    assert (await door.send("GET", "audit", params=query)).json()["total"] == total


async def test_all_of_it_is_exported_as_json_lines_oldest_first(door: Any):
    answer = await door.send("GET", "audit", params={"limit": 1}, headers={"accept": "application/jsonl"})
    told = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert [one["principal"] for one in told] == [None, "ann", "bob"]


@pytest.mark.parametrize("accept", ["application/jsonl", "text/csv"])
async def test_an_export_reads_the_state_where_events_change_it(
    door: Any, monkeypatch: pytest.MonkeyPatch, accept: str
):
    threads: set[str] = set()

    def entry(*of: Any) -> Any:
        threads.add(threading.current_thread().name)
        return entry_of(*of)

    monkeypatch.setattr("tunewheel_console.control.commands.entry_of", entry)
    await door.send("GET", "audit", headers={"accept": accept})
    assert threads == {threading.current_thread().name}


async def test_a_table_has_no_cell_that_a_spreadsheet_would_compute(state: Any, desk: Any, door: Any):
    state.apply(desk.say("model.commanded", model_id="desk-9", action="=cmd()", reason="r", request="r"))
    answer = await door.send("GET", "audit", headers={"accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert (len(rows), rows[-1]["principal"]) == (4, "bob")
    assert "'=cmd()" in {row["action"] for row in rows}


async def test_an_operator_of_one_project_sees_no_trail(door: Any):
    door.roles = frozenset({Role.VIEWER})
    assert (await door.send("GET", "audit")).status_code == 403


async def test_a_command_of_this_console_shows_its_signature_once_it_is_read_from_the_log(
    state: Any, desk: Any, door: Any
):
    event = door.log.events[0]
    signature = base64.urlsafe_b64encode(b'{"kid":"console-2"}').decode().rstrip("=") + ".e30.c2ln"
    state.apply(replace(event, data=event.data.model_copy(update={"signature": signature})))
    listed = (await door.send("GET", "audit", params={"principal": "ann"})).json()["items"]
    assert [one["signed_by"] for one in listed] == ["console-2"]


async def test_a_command_that_this_console_took_names_its_key_at_once(state: Any, tmp_path: Path):
    """Not only once the log is read again."""
    keys, log = CommandKeys(tmp_path), MemoryLog()
    actions = Actions(log, applied=state.apply, sign=keys.of("console").sign)  # type: ignore[arg-type]
    ann = {"project": "desk", "principal": Principal(name="ann"), "request": None}
    built = await actions.give(DatasetRequested, reason=BuildReason.COMMAND, **ann)
    paused = await actions.give(TrainControl, run_id="run-1", action=TrainAction.PAUSE, **ann)
    kid = json.loads(keys.private["console"])["kid"]
    assert [state.projects["desk"].commands.by_id[event.id].signed_by for event in (built, paused)] == [
        kid,
        kid,
    ]
