"""A topic is one file: the class of its events and its specification. Everything else finds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import tunewheel_contracts

NEW = """
from typing import ClassVar

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import Slug, SourceId
from tunewheel_contracts.topic import TopicSpec


class ModelExported(Event):
    \"\"\"A model was written to a file.\"\"\"

    type: ClassVar[str] = "model.exported"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("format",)

    project: Slug
    model_id: Slug
    format: SourceId
    size_bytes: int
    note: str | None = None


MODEL_EXPORTED = TopicSpec(ModelExported, ("registry",), ("monitor",))
"""
PROGRAM = """
from tunewheel_local.topics import wanted_topics
from tunewheel_wheel.describing import describe
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.exports import MODEL_EXPORTED, ModelExported
from tunewheel_contracts.generation.asyncapi import document
from tunewheel_contracts.generation.schemas import all_schemas
from tunewheel_contracts.topics import BY_NAME, ERASED_LETTERS, NOT_SHOWN

assert BY_NAME["model.exported"] is MODEL_EXPORTED not in NOT_SHOWN
assert MODEL_EXPORTED.dead_letter in ERASED_LETTERS
assert {"model.exported", "model.exported.dlq"} <= {topic.name for topic in wanted_topics()}
assert "model.exported" in all_schemas() and "model.exported" in document()["channels"]
event = new_event(ModelExported(project="desk", model_id="desk-1", format="gguf", size_bytes=7), source="/t")
record = event.to_kafka()
assert Envelope.from_kafka(ModelExported, record.value, record.headers) == event
assert describe(event) == "desk-1: format gguf, size_bytes 7", describe(event)
state = ConsoleState()
state.apply(event)
assert "desk" in state.projects
"""


def test_a_new_topic_is_one_file(tmp_path: Path) -> None:
    copy = tmp_path / "tunewheel_contracts"
    shutil.copytree(Path(tunewheel_contracts.__file__).parent, copy)
    (copy / "events" / "exports.py").write_text(NEW)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
