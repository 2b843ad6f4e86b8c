"""The dead letters of all services: where each lies and why it was refused, without the messages."""

from __future__ import annotations

from datetime import UTC, datetime

from tunewheel_contracts.api.services import DeadLetter
from tunewheel_runtime.deadletter import Position, Undecoded, refused

KEPT = 20_000
"""How many of the latest letters are listed."""


class Letters:
    """Folds dead letters. A letter that is written twice counts once. The text of a message is not kept: an
    erasure would not find it here."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Position], DeadLetter] = {}

    def add(self, letter: Undecoded) -> None:
        found = self._found
        identity = refused(letter)
        found.pop(identity, None)
        found[identity] = _letter(letter)
        if len(found) > KEPT:
            del found[next(iter(found))]

    def all(self) -> list[DeadLetter]:
        return list(self._found.values())


def _letter(letter: Undecoded) -> DeadLetter:
    headers = {name: value.decode("utf-8", "replace") for name, value in letter.headers.items()}
    at = datetime.fromtimestamp(letter.logged_ms / 1000, UTC) if letter.logged_ms is not None else None
    return DeadLetter(
        topic=headers.get("dlq_source_topic", letter.position.topic.removesuffix(".dlq")),
        partition=_number(headers.get("dlq_source_partition")),
        offset=_number(headers.get("dlq_source_offset")),
        service=headers.get("dlq_service", ""),
        field=headers.get("dlq_field", ""),
        reason=headers.get("dlq_reason", ""),
        event_id=headers.get("ce_id", ""),
        kind=headers.get("dlq_kind", "invalid"),
        project=headers.get("ce_project"),
        at=at,
    )


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else -1
