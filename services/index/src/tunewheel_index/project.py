"""What the index holds of one project in memory."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.withdrawals import Withdrawals
from tunewheel_retrieval.building import MAY_PASS
from tunewheel_retrieval.index import Index

from tunewheel_index.documents import Documents, Takes, Version

LONGEST_QUIET = 10
"""Changes that do not end are waited for so many quiet times, then a version is built all the same."""


@dataclass
class Project:
    """Its documents, its newest version, and whether something is still to be done."""

    spec: ProjectSpec
    documents: Documents
    newest: IndexVersioned | None = None
    published: list[IndexVersioned] = field(default_factory=list[IndexVersioned])
    """What this process published, and has not read from the log yet."""
    index: Index | None = None
    """The newest version, where it is in memory."""
    is_whole: bool = True
    """False: the log is still to be read from its beginning for it."""
    changed_at: float | None = None
    """When something changed last that is in no version yet, by a clock that never goes back; None: nothing
    did."""
    waits_since: float = 0.0
    """When the first such change came."""
    tries_again: bool = False
    """Whether the next build tries again what the newest version leaves out."""
    tried_at: float = -math.inf
    """When it last was the turn of those documents. A process that starts tries them soon: it may be of
    another release, or have other settings."""
    troubles: int = 0
    """Builds that failed one after the other."""
    erased: list[str] = field(default_factory=list[str])
    """Subjects of the erasures that this process carried out: what was planned before one, and holds it, must
    not be named after it."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while versions are stored and named, or deleted. Vectors are waited for without it."""

    @property
    def name(self) -> str:
        return self.spec.project

    def touch(self, now: float) -> None:
        """Note that something changed."""
        if self.changed_at is None:
            self.waits_since = now
        self.changed_at = now

    def due_at(self, quiet_seconds: float, retry_seconds: float) -> float | None:
        """Return when a version is to be built; None: nothing changed, and nothing is to be tried again.
        What changed goes first: the log is read for what is tried again, which takes long."""
        if self.changed_at is not None:
            at_the_latest = self.waits_since + LONGEST_QUIET * quiet_seconds
            return min(self.changed_at + quiet_seconds, at_the_latest)
        return self.tried_at + retry_seconds if self.leaves_out else None

    @property
    def leaves_out(self) -> bool:
        """Whether the newest version lacks a document that may pass another time."""
        return self.newest is not None and not MAY_PASS.isdisjoint(self.newest.counts.left_out)

    def begin(self, now: float, retry_seconds: float) -> None:
        """Note that a build begins: of what changed, or, where nothing did, of what is tried again."""
        if not self.leaves_out:
            self.tried_at = now
        elif self.changed_at is None and now >= self.tried_at + retry_seconds:
            self.tried_at, self.tries_again = now, True
        self.changed_at = None


def takes_of(project: str, withdrawals: Withdrawals, erasures: Erasures) -> Takes:
    """Return what tells whether a version of a document was withdrawn or erased, as is known when asked."""

    def takes(version: Version) -> bool:
        if withdrawals.takes(project, version.document_id, version.published_at):
            return True
        moments = {version.published_at, version.occurred_at or version.published_at}
        return any(
            erasures.take(project=project, customer=version.group, source_id=version.document_id, at=moment)
            for moment in moments
        )

    return takes
