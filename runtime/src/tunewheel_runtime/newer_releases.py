"""Reports what this process could not read because a newer release wrote it."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from opentelemetry.metrics import Meter, NoOpMeter
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.deadletter import Position, Warn

log = structlog.get_logger(__name__)
MOST_FIELDS = 20
"""Most fields of one topic that are named, since a label with very many values would overload the metrics."""
LONGEST_NAME = 200


class NewerReleases:
    """Unknown fields that were left out of events, and records that were skipped as a whole."""

    def __init__(self, warn: Warn = lambda _name, _text: None, meter: Meter | None = None) -> None:
        self._warn = warn
        self._left_out: dict[str, set[str]] = {}
        """By topic, the names of the fields."""
        self._skipped: set[str] = set()
        meter = meter or NoOpMeter("")
        self._fields = meter.create_counter(
            "tunewheel.events.unknown_fields", description="Fields left out of events, as a newer release's"
        )
        self._records = meter.create_counter(
            "tunewheel.events.skipped", description="Records that a view or replay could not read"
        )

    def left_out(self, topic: TopicSpec, names: Sequence[str]) -> None:
        """Report fields that were left out of one event. Each is logged once."""
        for name in (name[:LONGEST_NAME] for name in names):
            logged = self._left_out.setdefault(topic.name, set())
            if name not in logged:
                if len(logged) >= MOST_FIELDS:
                    return
                logged.add(name)
                text = (
                    f"{topic.name} has {name}, which a newer release wrote and this one leaves out; upgrade "
                    "this service"
                )
                log.warning("unknown_field", topic=topic.name, field=name)
                self._warn(f"unknown {topic.name} {name}", text)
            self._fields.add(1, {"topic": topic.name, "field": name})

    def skipped(self, topic: TopicSpec, key: bytes | None, position: Position, error: InvalidEvent) -> None:
        """Report a record that a view or replay skipped. On a compacted topic its readable predecessor is
        gone, so the warning stays until the key has a readable record."""
        log.error("view_skipped_record", topic=topic.name, offset=position.offset, reason=str(error))
        self._records.add(1, {"topic": topic.name})
        if topic.cleanup == "compact":
            name = _skipped(topic, key)
            self._skipped.add(name)
            text = (
                f"{name.removeprefix('skipped ')} cannot be read ({error}), so this service does not know "
                "its state; upgrade this service, or publish the state again"
            )
            self._warn(name, text)

    def has_read(self, topic: TopicSpec, key: bytes | None) -> None:
        """Take back the warning about the key of a compacted topic, whose newest record was read."""
        if self._skipped and (name := _skipped(topic, key)) in self._skipped:
            self._skipped.discard(name)
            self._warn(name, None)


def _skipped(topic: TopicSpec, key: bytes | None) -> str:
    return f"skipped {topic.name} of {(key or b'').decode('utf-8', 'replace')}"
