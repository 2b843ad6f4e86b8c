"""What became of a command: it waits, was carried out, or was refused and why."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.erasures import HOLDERS
from tunewheel_contracts.formats.evaluation_plan import (
    EvaluationPlan,
    EvaluationRequest,
    later_plan_path,
    request_path,
)
from tunewheel_contracts.topics import PROJECT_DECLARED
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_testing.adapters import SHA, adapter_of, artifact


async def shown(door: Any, command_id: str) -> dict[str, Any]:
    answer = await door.send("GET", f"projects/desk/commands/{command_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def letter(event: Any, *, service: str, field: str, reason: str) -> Undecoded:
    record = event.to_kafka()
    told = {"service": service, "field": field, "reason": reason}
    headers = record.headers | {f"dlq_{name}": value.encode() for name, value in told.items()}
    place = Position(f"{record.topic}.dlq", 0, 0)
    return Undecoded(place, record.key, record.value, headers, logged_ms=1_767_225_600_000)


async def test_a_command_on_a_model_waits_for_the_registrys_answer(state: Any, desk: Any, door: Any):
    state.apply(desk.promoted())
    order = await door.send("POST", f"projects/desk/models/{desk.model_id()}/rollback", {"reason": "r"})
    command_id = order.json()["command_id"]
    told = await shown(door, command_id)
    assert (told["state"], told["action"], told["target"]) == ("waiting", "rollback", desk.model_id())
    assert (await shown(door, command_id[:12]))["command_id"] == command_id
    fell = {"from_stage": "production", "restored": None, "cause": command_id, "reason": "r"}
    event = desk.of_model("model.rolledback", **fell)
    state.apply(event)
    told = await shown(door, "latest")
    assert (told["state"], told["answered_by"], told["led_to"]) == ("done", event.id, desk.model_id())


async def test_a_refusal_of_the_registry_is_told_with_its_field(state: Any, desk: Any, door: Any):
    command = desk.of_model("model.commanded", action="pin", reason="r", request="r")
    told = {"action": "pin", "command_id": command.id, "field": "model_id", "reason": "is no champion"}
    state.apply(desk.of_model("command.refused", **told))
    state.apply(command)
    told = await shown(door, command.id)
    assert (told["state"], told["field"], told["reason"]) == ("refused", "model_id", "is no champion")
    assert told["answered_by"] == "registry"


async def test_a_build_is_done_when_curate_has_made_the_version_of_the_request_that_follows(
    state: Any, desk: Any, door: Any
):
    asked = desk.requested()
    following = desk.say(
        "dataset.requested", asked, reason="command", request=asked.id, records_upto={"0": 1}
    )
    state.apply(asked)
    state.apply(following)
    assert (await shown(door, asked.id))["state"] == "waiting"
    made = desk.event(desk.versioned().data, following)
    state.apply(made)
    told = await shown(door, asked.id)
    assert (told["state"], told["led_to"], told["answered_by"]) == ("done", "ds-1", made.id)
    assert following.id not in state.projects["desk"].commands.by_id, "no person gave it"


async def test_a_build_without_a_version_is_refused_with_curates_reasons(state: Any, desk: Any, door: Any):
    asked = desk.requested()
    told = {"spec_sha256": SHA, "rows_sha256": SHA, "reasons": ("too few examples", "no holdout")}
    for event in (asked, desk.say("dataset.rejected", asked, **told)):
        state.apply(event)
    told = await shown(door, asked.id)
    assert (told["state"], told["reason"]) == ("refused", "too few examples; no holdout")


@pytest.mark.parametrize("first", ["command", "letter"])
async def test_a_dead_letter_refuses_a_command_in_whatever_order_they_are_read(
    state: Any, desk: Any, door: Any, first: str
):
    command = desk.say("eval.requested", run_id="run-1", request="r")
    refusal = letter(command, service="eval", field="principal", reason="lacks the role operator")
    steps = [lambda: state.apply(command), lambda: state.refuse_command(refusal, command)]
    for step in steps if first == "command" else reversed(steps):
        step()
    told = await shown(door, command.id)
    assert (told["state"], told["field"], told["answered_by"]) == ("refused", "principal", "eval")
    assert told["answered_at"] == "2026-01-01T00:00:00Z"
    passed = desk.passed()
    state.refuse_command(letter(passed, service="registry", field="x", reason="no command"), passed)
    assert len(state.projects["desk"].commands.by_id) == 1


async def test_an_evaluation_is_done_with_its_verdict_or_with_a_scorecard_that_informs(
    state: Any, desk: Any, door: Any
):
    judged, informing = (desk.say("eval.requested", run_id="run-1", request=name) for name in "ab")
    for event in (judged, informing, desk.event(desk.passed(evaluation_id="evaluation-2").data, judged)):
        state.apply(event)
    assert (await shown(door, judged.id))["led_to"] == "evaluation-2"
    plan = EvaluationPlan(
        project="desk", run_id="run-1", dataset_id="ds-1", dataset=artifact("m.json"), criteria_sha256=SHA,
        adapter=adapter_of(desk.model_id()), champion=None, scorecard_id="sc-3", review_required=False,
    )  # fmt: skip
    note = EvaluationRequest(evaluation_id="evaluation-3").model_dump_json().encode()
    await door.store.put(request_path("run-1", informing.id), note)
    assert (await shown(door, informing.id))["state"] == "waiting"
    await door.store.put(later_plan_path("run-1", "evaluation-3"), plan.model_dump_json().encode())
    assert (await shown(door, informing.id))["state"] == "waiting"
    await door.store.put(plan.scorecard_path, b"{}")
    told = await shown(door, informing.id)
    assert (told["state"], told["led_to"]) == ("done", "evaluation-3")


async def test_an_erasure_is_done_when_every_holder_has_its_proof(state: Any, desk: Any, door: Any):
    asked = desk.say("erasure.requested", erasure_id="L-1", customer="C", requested_by="ann")
    state.apply(asked)
    for holder in HOLDERS:
        told = await shown(door, asked.id)
        assert (told["state"], holder in told["reason"]) == ("waiting", True)
        state.apply(
            desk.say(
                "erasure.completed", erasure_id="L-1", holder=holder, customer="C", requested_by="ann",
                erased_by=holder, completed_at=asked.time, records=1,
            )
        )  # fmt: skip
    assert (await shown(door, asked.id))["state"] == "done"


async def test_what_no_service_answers_is_done_on_the_log(state: Any, desk: Any, door: Any):
    for event in (
        desk.declared(),
        desk.controlled("pause"),
        desk.say("document.withdrawn", document_id="a.md"),
    ):
        state.apply(event)
        assert (await shown(door, event.id))["state"] == "done"
    waiting = await door.send("GET", "projects/desk/commands", params={"state": "waiting"})
    assert waiting.json()["total"] == 0
    listed = (await door.send("GET", "projects/desk/commands", params={"limit": 2})).json()
    assert ([one["action"] for one in listed["items"]], listed["total"]) == (["withdraw", "pause"], 3)


async def test_a_command_that_another_console_took_is_found(state: Any, desk: Any, door: Any):
    event = desk.controlled("pause")
    door.log.events.append(event)
    assert (await shown(door, event.id))["action"] == "pause"
    unknown = await door.send("GET", "projects/desk/commands/no-such-command")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "command_id")


def test_a_spec_that_is_declared_again_after_another_one_is_in_force_again(state: Any, desk: Any):
    first = desk.declared()
    for event in (first, desk.declared(max_output_tokens=9), desk.event(first.data)):
        state.apply(event)
    assert state.projects["desk"].spec == first.data.spec
    state.forget(PROJECT_DECLARED, "desk")
    state.apply(desk.event(first.data))
    assert state.projects["desk"].spec == first.data.spec, "removed, and declared once more"
