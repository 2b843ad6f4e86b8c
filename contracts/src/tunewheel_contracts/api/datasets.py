"""Dataset versions and their rows."""

from __future__ import annotations

from tunewheel_contracts.changes import Change
from tunewheel_contracts.fields import Frozen, Timestamp
from tunewheel_contracts.formats.dataset import ChatMessage, DatasetCounts, DatasetManifest, FunnelStage


class DatasetSummary(Frozen):
    dataset_id: str
    project: str
    created_at: Timestamp
    reason: str
    """Why it was built: ``count``, ``quiet``, ``command`` or ``drift``."""
    counts: DatasetCounts
    base_model: str
    preliminary: str | None = None
    """Why this version is only preliminary."""
    previous: str | None = None
    """The project's previous version."""
    index_id: str | None = None
    runs: tuple[str, ...] = ()
    """The runs that were trained on it."""


class LabelCounts(Frozen):
    train: int
    holdout: int


class Chances(Frozen):
    """How probable each verdict is on the held-out rows."""

    gain: float | None = None
    """How much better than the champion the model is, as a share of rows; None: there is no champion."""
    met: float
    undecided: float
    missed: float


class Remedy(Frozen):
    """A change of the spec that would make verdicts on a good model probable enough."""

    change: str
    lines: tuple[str, ...]


class Power(Frozen):
    """What the criteria can show on the held-out rows."""

    rows: int
    customers: int
    assumed: tuple[str, ...] = ()
    chances: tuple[Chances, ...] = ()
    remedies: tuple[Remedy, ...] = ()


class DatasetDetail(DatasetSummary):
    funnel: tuple[FunnelStage, ...] = ()
    missing_records: int | None = None
    """The number of records that were deleted from the log before curate read them."""
    manifest: DatasetManifest
    labels: dict[str, LabelCounts] = {}
    """By label. Empty: there are no labels, or the rows were deleted by an erasure."""
    rows_deleted: bool = False
    """Whether an erasure deleted the version's rows."""
    rows_hidden: str | None = None
    """Why its rows are not shown, although they are there."""
    power: Power | None = None


class Row(Frozen):
    """One row of a split. In ``train`` and ``holdout`` the last message is the answer. In ``preferences`` and
    ``negatives`` the messages are the prompt."""

    row_id: str
    messages: tuple[ChatMessage, ...] = ()
    chosen: str | None = None
    rejected: str | None = None
    label: str | None = None
    group: str = ""
    """A pseudonym of the customer or thread."""
    trust: str = ""
    format: str | None = None
    source: str | None = None
    language: str | None = None
    record_ids: tuple[str, ...] = ()
    split: str = ""
    erased: bool = False
    """Whether a record behind the row was erased after the version was built. The texts are then left
    out."""


class RowTokens(Frozen):
    """A row of ``train`` or ``holdout`` as training encodes it: the text after the chat template, in
    tokens."""

    row_id: str
    split: str
    pieces: tuple[str, ...]
    """The text of each token. Of tokens that are one character together, the first has it."""
    ids: tuple[int, ...]
    learnt: tuple[bool, ...]
    """Whether each token has a loss: those of the last answer, in general data of every answer."""
    longest: int
    """``train.max_tokens`` of the version. A training row of more tokens is left out as a whole."""


class DroppedRecord(Frozen):
    """A record that is in no row of a version."""

    record_id: str
    kind: str
    stage: str
    """The stage of the funnel that dropped it."""
    reason: str


class DatasetDifference(Frozen):
    """The changes from version ``before`` to version ``after``."""

    before: str
    after: str
    counts: dict[str, Change] = {}
    added: dict[str, int] = {}
    """Examples only in ``after``, by split."""
    removed: dict[str, int] = {}
    """Examples only in ``before``, by split."""
    moved: dict[str, int] = {}
    """Examples of both versions that changed splits: train → holdout, never the other way."""
    answers_changed: int = 0
    """Questions of both versions with different answers. They count in ``added`` and ``removed`` too."""
    changed_questions: tuple[str, ...] = ()
    """The beginnings of some of these questions."""
    labels: dict[str, Change] = {}
    """By label, the number of training examples."""
    funnel: dict[str, dict[str, Change]] = {}
    """By stage, how many records entered and left, and the number for each reason."""
    spec: dict[str, Change] = {}
    """By dotted path."""

    @property
    def is_none(self) -> bool:
        """Whether the versions do not differ."""
        return not any(self.model_dump(exclude={"before", "after"}).values())
