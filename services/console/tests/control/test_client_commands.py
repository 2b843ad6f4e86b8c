"""Tunewheel's own Python client declares, takes back, changes keys and reads the audit trail, over the real
routes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_client import AsyncClient, Conflict, NotFound, Refused
from tunewheel_console.settings import Settings
from tunewheel_runtime.identity.keys import read_keys, sum_of


async def test_a_spec_is_checked_declared_and_taken_back(
    operator: AsyncClient, state: Any, desk: Any, door: Any
):
    spec = json.loads(desk.spec().model_dump_json())
    checked = await operator.projects.declare("desk", spec, check=True, power=False)
    assert (checked.command_id, checked.spec_sha256, door.log.events) == ("", desk.spec().sha256, [])
    declared = await operator.projects.declare("desk", yaml.safe_dump(spec), power=False)
    assert (declared.command_id, declared.power) == (door.log.events[-1].id, None)
    assert (await operator.projects.remove("desk")).project == "desk"
    with pytest.raises(NotFound) as error:
        await operator.projects.remove("desk-2")
    assert error.value.param == "project"


async def test_every_fault_of_a_spec_is_in_the_error(operator: AsyncClient, desk: Any, door: Any):
    spec = json.loads(desk.spec().model_dump_json()) | {"base_modle": "m", "dataset": {"holdout_fraction": 2}}
    with pytest.raises(Refused) as error:
        await operator.projects.declare("desk", spec)
    assert {field for field, _ in error.value.faults} == {"dataset.holdout_fraction", "base_modle"}
    assert (error.value.param, door.log.events) == (error.value.faults[0][0], [])


async def test_documents_are_withdrawn_and_persons_erased(
    operator: AsyncClient, state: Any, desk: Any, door: Any
):
    state.apply(desk.declared())
    withdrawn = await operator.documents.withdraw("desk", ["returns.md", "refunds.md"], reason="old")
    assert [event.id for event in door.log.events] == list(withdrawn.command_ids)
    unknown = await operator.documents.withdraw("desk", ["no.md"])
    assert (withdrawn.warnings, "no.md" in unknown.warnings[0]) == ((), True)
    told = {"customer": "c-1", "requested_by": "dpo"}
    ordered = [await operator.erasures.request("desk", request="letter-1", **told) for _ in range(2)]
    assert ordered[0] == ordered[1]
    erasure = await operator.erasures.show("desk", "letter-1")
    assert (erasure.erasure_id, erasure.customer, erasure.state) == ("letter-1", "c-1", "waiting")
    assert "curate" in erasure.missing
    assert (await operator.erasures.list("desk")).items == (erasure,)
    with pytest.raises(Refused) as refused:
        await operator.erasures.request("desk", requested_by="dpo")
    assert refused.value.param == "customer"


async def test_a_key_is_made_rotated_and_revoked(state: Any, log: Any, store: Any, door: Any, tmp_path: Path):
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": {"ann": {"sha256": sum_of("k"), "roles": ["operator"]}}}))
    made = type(door)(state, log, store, Settings(api_keys_file=file))
    made.guarded()
    operator = made.client()
    new = await operator.keys.add("app", roles=["application"], projects=["desk"])
    assert read_keys(file).find(new.key) is not None
    with pytest.raises(Conflict):
        await operator.keys.add("app", roles=["application"])
    newer = await operator.keys.rotate("app", keep_old=True)
    (app,) = [key for key in (await operator.keys.list()).keys if key.name == "app"]
    assert (app.roles, app.projects, app.keys) == (("application",), ("desk",), 2)
    await operator.keys.revoke("app", old_only=True)
    assert [read_keys(file).find(key) is not None for key in (new.key, newer.key)] == [False, True]
    await operator.keys.revoke("app")
    assert [key.name for key in (await operator.keys.list()).keys] == ["ann"]


async def test_the_audit_trail_is_read_and_exported(operator: AsyncClient, state: Any, desk: Any):
    state.apply(desk.started())
    paused = await operator.runs.pause("desk", "run-1")
    await operator.runs.resume("desk", "run-1")
    page = await operator.audit.list(project="desk", principal="ann", limit=1)
    assert (page.total, page.items[0].action, page.items[0].principal) == (2, "resume", "ann")
    lines = (await operator.audit.export()).splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["pause", "resume"]
    (first, _) = csv.DictReader(io.StringIO(await operator.audit.export("csv", principal="ann")))
    assert first["command_id"] == paused.command_id
    assert (await operator.audit.export(since=page.items[0].at, project="shop")) == ""
