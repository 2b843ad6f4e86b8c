from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tunewheel_console.letters import event_in
from tunewheel_contracts.event import KafkaRecord
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.forgeries import COMMANDS, command, of_another_command, unsigned


@pytest.fixture(scope="module")
def keys(tmp_path_factory: Any) -> CommandKeys:
    folder: Path = tmp_path_factory.mktemp("keys")
    return CommandKeys(folder)


def letter(record: KafkaRecord, *, source: str | None = None) -> Undecoded:
    place = {"service": "registry", "source_topic": source or record.topic}
    place |= {"source_partition": "0", "source_offset": "7"}
    headers = record.headers | {f"dlq_{name}": text.encode() for name, text in place.items()}
    return Undecoded(Position(f"{source or record.topic}.dlq", 0, 0), record.key, record.value, headers)


def found_in(letter: Undecoded, keys: CommandKeys) -> str | None:
    topic = BY_NAME[letter.position.topic.removesuffix(".dlq")]
    event = event_in(letter, topic, keys.of("console").check)
    return event.id if event else None


@pytest.mark.parametrize("topic", COMMANDS)
def test_a_forged_copy_of_a_command_does_not_undo_the_command(topic: str, keys: CommandKeys):
    real = keys.sign(command(topic, "desk"))
    record = real.to_kafka()
    assert found_in(letter(record), keys) == real.id
    for forge in (unsigned, of_another_command):
        assert found_in(letter(forge(record, keys)), keys) is None


def test_a_letter_of_another_topic_does_not_undo_a_command(keys: CommandKeys):
    """Whoever publishes tickets chooses the headers of a ticket."""
    record = keys.sign(command("model.commanded", "desk")).to_kafka()
    assert found_in(letter(record, source="ticket.published"), keys) is None
    assert found_in(letter(replace(record, value=b"{"), source="ticket.published"), keys) is None


def test_a_command_of_an_earlier_release_that_was_refused_is_undone(keys: CommandKeys):
    signatures = keys.of("console")
    signatures._from = {"train.control": {"0": 8}}
    record = command("train.control", "desk").to_kafka()
    assert "signature" not in json.loads(record.value)
    assert event_in(letter(record), BY_NAME["train.control"], signatures.check) is not None
    signatures._from = {"train.control": {"0": 7}}
    assert event_in(letter(record), BY_NAME["train.control"], signatures.check) is None
