"""People's decisions about quarantined records, folded from the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordJudged
from tunewheel_contracts.fields import Frozen, Slug
from tunewheel_contracts.withdrawals import ends_of


class Judged(Frozen):
    """The records that people released or refused, by the latest decision about each."""

    released: tuple[Slug, ...] = ()
    refused: tuple[Slug, ...] = ()


NOBODY_JUDGED = Judged()


class Judgements:
    """All decisions so far. Applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._by_project: dict[str, dict[tuple[int, int], RecordJudged]] = {}
        self._latest: dict[tuple[str, str], tuple[tuple[int, int], str]] = {}
        """By project and record, the position and the verdict of the latest decision."""

    def apply(self, envelope: Envelope[Any], partition: int, offset: int) -> None:
        """Add one event and its position on the log. Other events are ignored."""
        if isinstance(envelope.data, RecordJudged):
            data, subject = envelope.data, (envelope.project, envelope.data.record_id)
            self._by_project.setdefault(envelope.project, {})[partition, offset] = data
            verdict = ((partition, offset), data.verdict)
            self._latest[subject] = max(verdict, self._latest.get(subject, verdict))

    def verdict(self, project: str, record_id: str) -> str | None:
        """Return the latest known decision about a record; None: there is none."""
        return self._latest.get((project, record_id), (None, None))[1]

    def upto(self, project: str) -> dict[str, int]:
        """Return, by partition, the offset after the project's last known decision."""
        return ends_of(self._by_project.get(project, ()))

    def before(self, project: str, upto: Mapping[str, int]) -> Judged:
        """Return the decisions before the offsets ``upto``. The topic keeps a project in one partition."""
        verdicts: dict[str, str] = {}
        for (partition, offset), data in sorted(self._by_project.get(project, {}).items()):
            if offset < upto.get(str(partition), 0):
                verdicts[data.record_id] = data.verdict
        released = tuple(sorted(name for name, verdict in verdicts.items() if verdict == "release"))
        return Judged(released=released, refused=tuple(sorted(verdicts.keys() - set(released))))

    def released_since(self, project: str, upto: Mapping[str, int]) -> dict[str, str]:
        """Return the records whose latest decision is a release that comes after the offsets ``upto``, and
        where that decision stands on the log."""
        return {
            record_id: f"{partition}-{offset}"
            for (owner, record_id), ((partition, offset), verdict) in self._latest.items()
            if owner == project and verdict == "release" and offset >= upto.get(str(partition), 0)
        }
