"""What curate knows from the log besides the records: what was declared, asked, built and taken back."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import DOCUMENT_WITHDRAWN, ERASURE_REQUESTED, PROJECT_DECLARED
from tunewheel_runtime.service import Position

from tunewheel_curate.builds.history import TOPICS as HISTORY_TOPICS
from tunewheel_curate.builds.history import History
from tunewheel_curate.records.erasures import Erasures
from tunewheel_curate.records.withdrawals import Withdrawals

TOPICS = (PROJECT_DECLARED, DOCUMENT_WITHDRAWN, ERASURE_REQUESTED, *HISTORY_TOPICS)


class Known:
    """The folds, fed together; applying an event twice changes nothing."""

    def __init__(self) -> None:
        self.history = History()
        self.withdrawals = Withdrawals()
        self.erasures = Erasures()
        self.specs: dict[str, ProjectSpec] = {}
        """By hash: every spec that the log still holds, the earlier ones too."""

    def apply(self, envelope: Envelope[Any], position: Position) -> None:
        """Take note of one event on the log."""
        if isinstance(envelope.data, ProjectDeclared):
            self.specs[envelope.data.spec.sha256] = envelope.data.spec
        self.history.apply(envelope)
        self.withdrawals.apply(envelope, position.partition, position.offset)
        self.erasures.apply(envelope)
