"""A model's stage follows from its events; a base model's line says what is known of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tunewheel_cli.commands.tables import print_models
from tunewheel_cli.wheel_report import fold_models
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.topics import BY_NAME
from tunewheel_testing.story import example

START = datetime(2026, 1, 1, tzinfo=UTC)


def event(name: str, which: str, minute: int, **changes: Any) -> Envelope[Any]:
    data = BY_NAME[name].event.model_validate(example(name, which) | changes)
    return new_event(data, source="/test", time=START + timedelta(minutes=minute))


@pytest.fixture
def events() -> list[Envelope[Any]]:
    adapter = {"model_id": "helpdesk-acba25512100"}
    return [
        event("model.registered", "base-described", 0),
        event("model.registered", "adapter", 1),
        event("model.promoted", "to-production", 2, **adapter, from_stage="evaluated", to_stage="canary"),
        event("model.rolledback", "to-champion", 3, **adapter, from_stage="canary"),
    ]


def test_the_stage_is_that_of_the_last_event_in_whatever_order_they_are_read(events) -> None:
    for read in (events, events[::-1], events * 2):
        base, adapter = fold_models(read)
        assert (base.registration.kind, base.stage.value) == ("base", "registered")
        assert (adapter.registration.kind, adapter.stage.value) == ("adapter", "rolled_back")
    assert fold_models(events[:3])[1].stage.value == "canary"


def test_a_base_model_says_what_its_files_say(events) -> None:
    base, adapter = fold_models(events)
    assert base.about == "apache-2.0, 135M parameters, context 8,192, chat template f9a1e3b1c3de"
    assert adapter.about == ""
    assert base.as_json()["base_facts"]["parameters"] == 134_515_008
    assert fold_models([event("model.registered", "base", 0)])[0].about == ""


def test_models_of_one_name_in_two_projects_are_two(events) -> None:
    assert len(fold_models([events[0], event("model.registered", "base-described", 0, project="other")])) == 2


def test_models_are_printed_a_line_each(events, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_models(fold_models(events))
    printed = capsys.readouterr().out
    assert "SmolLM2-135M-Instruct at cae662172fd4" in printed
    assert "apache-2.0, 135M parameters" in printed
    print_models([])
    assert "no model is registered" in capsys.readouterr().out
