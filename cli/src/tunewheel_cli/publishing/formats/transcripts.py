"""Transcripts: ShareGPT's ``conversations`` of {from, value}, and other lists of speakers and texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunewheel_cli.publishing.formats.conversations import ROLES, examples_of, parts_of, turns_of
from tunewheel_cli.publishing.formats.form import Fields, Form, LeftOut, Record, Unfit, kept

NAMES = ("conversations", "conversation", "dialogue", "dialog", "turns")


def _is_transcript(value: Any) -> bool:
    if not isinstance(value, list) or len(value) < 2:
        return False
    speakers = [str(parts_of(message)[0]).strip().casefold() for message in value]
    return len({ROLES.get(speaker) for speaker in speakers} - {None}) >= 2


def _key(record: Record) -> str | None:
    """Return the key of the transcript. Known names come first."""
    named = (name for name in NAMES if isinstance(record.get(name), list))
    others = (name for name, value in record.items() if _is_transcript(value))
    return next(named, None) or next(others, None)


def fits(record: Record) -> bool:
    key = _key(record)
    return key is not None and _is_transcript(record[key])


def examples(record: Record, left: LeftOut) -> Iterator[Fields]:
    if (key := _key(record)) is None:
        raise Unfit("conversations", "is missing; add it")
    if isinstance(record.get("system"), str) and record["system"].strip():
        left.leave_prompt(record["system"])
    for found in examples_of(turns_of(record[key], key, left), key, left):
        yield found | kept(record)


TRANSCRIPT = Form("sharegpt", "ShareGPT or another transcript", frozenset(NAMES), fits, examples)
