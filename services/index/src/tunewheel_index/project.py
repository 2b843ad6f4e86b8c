"""The state of one project's index in memory."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.formats.dataset import RecordsUpto
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.withdrawals import Withdrawals
from tunewheel_retrieval.files import MAY_PASS
from tunewheel_retrieval.index import Index

from tunewheel_index.documents import Documents, Takes, Version

LONGEST_QUIET = 10
"""After so many quiet times a version is built even if documents go on changing."""


@dataclass
class Project:
    """A project's documents, its newest version, and whether a build is due."""

    spec: ProjectSpec
    documents: Documents
    newest: IndexVersioned | None = None
    published: list[IndexVersioned] = field(default_factory=list[IndexVersioned])
    """Versions that this process published and has not yet read back from the log."""
    index: Index | None = None
    """The newest version, if it is in memory."""
    is_whole: bool = True
    """False: the project has not seen all records. Those after ``seen_upto`` have to be read."""
    seen_upto: RecordsUpto = field(default_factory=dict[str, int])
    """The offsets, by partition of the log, before which it has seen all records. What it read itself from
    the log is not told here."""
    changed_at: float | None = None
    """Monotonic time of the last change that is in no version yet. None: there is no such change."""
    waits_since: float = 0.0
    """Monotonic time of the first such change."""
    tries_again: bool = False
    """Whether the next build tries again the documents that the newest version leaves out."""
    tried_at: float = -math.inf
    """Monotonic time of the last try of those documents. A process tries them soon after its start, because
    its release or settings may be new."""
    troubles: int = 0
    """How many builds failed in a row."""
    erased: list[str] = field(default_factory=list[str])
    """Subjects of the erasures that this process carried out. A version that was planned before an erasure
    and holds its subject must not be named."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while versions are stored, named or deleted, but not while vectors are awaited."""

    @property
    def name(self) -> str:
        return self.spec.project

    def touch(self, now: float) -> None:
        """Note a change."""
        if self.changed_at is None:
            self.waits_since = now
        self.changed_at = now

    def due_at(self, quiet_seconds: float, retry_seconds: float) -> float | None:
        """Return when the next build is due. None: nothing changed, and nothing is to be tried again.

        A change goes before a retry, because a retry reads all records, which takes long.
        """
        if self.changed_at is not None:
            at_the_latest = self.waits_since + LONGEST_QUIET * quiet_seconds
            return min(self.changed_at + quiet_seconds, at_the_latest)
        return self.tried_at + retry_seconds if self.leaves_out else None

    @property
    def leaves_out(self) -> bool:
        """Whether the newest version leaves out a document that a later build may be able to include."""
        return self.newest is not None and not MAY_PASS.isdisjoint(self.newest.counts.left_out)

    def begin(self, now: float, retry_seconds: float) -> None:
        """Note that a build begins. If nothing changed, it tries the left-out documents again."""
        if not self.leaves_out:
            self.tried_at = now
        elif self.changed_at is None and now >= self.tried_at + retry_seconds:
            self.tried_at, self.tries_again = now, True
        self.changed_at = None


def takes_of(project: str, withdrawals: Withdrawals, erasures: Erasures) -> Takes:
    """Return a function that tells whether a version has been withdrawn or erased by now."""

    def takes(version: Version) -> bool:
        if withdrawals.takes(project, version.document_id, version.published_at):
            return True
        moments = {version.published_at, version.occurred_at or version.published_at}
        return any(
            erasures.take(project=project, customer=version.group, source_id=version.document_id, at=moment)
            for moment in moments
        )

    return takes
