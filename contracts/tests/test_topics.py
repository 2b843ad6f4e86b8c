from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest
from tunewheel_contracts import events
from tunewheel_contracts.event import Event
from tunewheel_contracts.topics import BY_NAME, TOPICS, TopicSpec


def test_every_event_class_has_a_topic() -> None:
    classes = {
        member
        for name in (module.name for module in pkgutil.iter_modules(events.__path__))
        for _, member in inspect.getmembers(
            importlib.import_module(f"{events.__name__}.{name}"), inspect.isclass
        )
        if issubclass(member, Event) and "type" in member.__dict__
    }
    assert len(classes) >= 25
    assert classes == {spec.event for spec in TOPICS}
    assert len(BY_NAME) == len(TOPICS)


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
def test_a_topic_is_named_and_keyed_by_what_its_event_has(spec: TopicSpec) -> None:
    fields = spec.event.model_fields
    assert re.fullmatch(r"[a-z]+\.[a-z]+(\.v[0-9]+)?", spec.name)
    assert spec.event.__name__.lower() == spec.name.replace(".", "")
    assert {spec.key, spec.event.subject_field, *spec.event.identity_fields} <= set(fields)
    assert fields[spec.key].is_required()
    assert spec.producers
    assert spec.partitions >= 1
    assert spec.summary


def test_a_compacted_topic_keeps_one_event_per_key_for_ever() -> None:
    compacted = [spec for spec in TOPICS if spec.cleanup == "compact"]
    names = {spec.name for spec in compacted}
    assert names == {
        "project.declared",
        "serving.desired",
        "index.versioned",
        "turn.decided",
        "alarm.opened",
        "turn.completed.v2",
        "window.judged",
    }
    assert all(spec.key == spec.event.subject_field and spec.retention_ms == -1 for spec in compacted)


def test_a_topic_with_consumers_has_a_dead_letter_topic() -> None:
    assert BY_NAME["dataset.versioned"].dead_letter == "dataset.versioned.dlq"
    assert BY_NAME["dataset.versioned"].dead_letter_exists
    assert not BY_NAME["train.failed"].dead_letter_exists


@pytest.mark.parametrize("spec", TOPICS, ids=lambda spec: spec.name)
def test_a_topic_with_consumers_has_a_group_that_writes_its_dead_letters(spec: TopicSpec) -> None:
    """Who only replays a topic writes none: each process reads it, at each start, all of it again."""
    assert set(spec.replayed_by) <= set(spec.consumers)
    assert (set(spec.consumers) > set(spec.replayed_by)) == spec.dead_letter_exists
