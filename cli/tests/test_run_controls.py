from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_cli.frame import app
from tunewheel_cli.run_controls import last_failure, make_control
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import TrainAction, TrainFailed, TrainStarted
from tunewheel_local.connection import InvalidOption
from tunewheel_testing.adapters import BASE
from typer.testing import CliRunner


def test_the_same_request_is_the_same_command() -> None:
    first, again, other = (make_control("p", "run-1", TrainAction.PAUSE, r, None) for r in ("a", "a", "b"))
    assert first.id == again.id != other.id
    assert first.data.action is TrainAction.PAUSE


@pytest.mark.parametrize("unknown", [True, False])
def test_a_command_to_a_run_that_no_event_names_is_sent_and_says_so(
    monkeypatch: pytest.MonkeyPatch, unknown: bool
) -> None:
    async def answer(*_: Any, **__: Any) -> Any:
        return make_control("p", "run-1", TrainAction.PAUSE, "r", None)

    async def heard(*_: Any) -> bool:
        return unknown

    monkeypatch.setattr("tunewheel_cli.reading.require_project", answer)
    monkeypatch.setattr("tunewheel_cli.run_controls.control", answer)
    monkeypatch.setattr("tunewheel_cli.run_controls.unheard_of", heard)
    command = ["run", "pause", "run-1", "--project", "p", "--bootstrap-servers", "127.0.0.1:9"]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith("pause asked of run-1\n")
    assert ("no event names this run so far" in said.stdout) is unknown
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["known"] is not unknown


def test_a_run_id_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(InvalidOption, match="run_id"):
        make_control("p", "Run 1", TrainAction.CANCEL, "r", None)


def started(run_id: str = "run-1"):
    return new_event(
        TrainStarted(
            project="p", run_id=run_id, dataset_id="ds-1", base=BASE, method="lora", total_steps=1,
            resumed_from_step=0,
        ),
        source="/t",
    )  # fmt: skip


def failed(run_id: str = "run-1"):
    data = TrainFailed(project="p", run_id=run_id, dataset_id="ds-1", field="(run)", reason="died")
    return new_event(data, source="/t")


def test_a_run_that_ended_in_failure_is_known_whatever_others_did() -> None:
    failure = failed()
    assert last_failure("run-1", [failure, started("run-2")]) is failure
    assert last_failure("run-1", [started("run-2"), failed("run-2")]) is None


def test_a_run_that_was_taken_up_again_is_not_started_a_third_time() -> None:
    events = [started(), failed(), started()]
    assert last_failure("run-1", events[::-1]) is None
    assert last_failure("run-1", events[:2]) is events[1]
