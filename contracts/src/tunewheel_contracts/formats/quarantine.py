"""The quarantine of a project: records that a build set aside until a person judges them. Curate replaces the
list at every build; an erasure takes its records out."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import Frozen, Slug, Text, Timestamp
from tunewheel_contracts.formats.dataset import RecordsUpto


class SetAside(StrEnum):
    """Why a record waits."""

    FLOOD = "flood"
    """One caller or customer sent more than ``dataset.limits`` allows."""
    TAKEOVER = "takeover"
    """It would replace a record that is trusted more, or that another caller published."""
    CONFLICT = "conflict"
    """Most others give the same question another label."""
    INJECTION = "injection"
    """It addresses the model."""
    CORRECTION = "correction"
    """An end user wrote the answer."""


class QuarantinedRecord(Frozen):
    record_id: Slug
    reason: str
    """A value of ``SetAside``."""
    evidence: Text
    """What was found, in words."""
    kind: str
    trust: str
    origin: str = ""
    """The name of the caller, where a service identified one."""
    published_at: Timestamp | None = None
    input: Text
    """The beginning of the question as it would train, without personal data. Of a document: a draft's."""
    output: Text | None = None
    instead_of: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The record that trains instead of the waiting one. Null: no record does."""


class Quarantine(Frozen):
    """The object ``quarantine/<project>.json``."""

    project: Slug
    records_upto: RecordsUpto = {}
    """The records that the build read."""
    records: tuple[QuarantinedRecord, ...] = ()


def quarantine_path(project: str) -> str:
    """Return where the quarantine of ``project`` lies in the object store."""
    return f"quarantine/{project}.json"
