"""What a build is given beside the records and the spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tunewheel_contracts.formats.dataset import TeacherUse
from tunewheel_contracts.withdrawals import Withdrawal

from tunewheel_curate.documents.teaching import Lesson
from tunewheel_curate.examples.tokens import Tokens, estimating
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.open_index import OpenIndex
from tunewheel_curate.replay.mixing import ReplayPool

NOT_ASKED = "no tokenizer was asked for"


@dataclass(frozen=True)
class Outside:
    """What is not on the log, pinned by the first attempt at the build (``builds/outside.py``)."""

    tokens: Tokens = field(default_factory=lambda: estimating("", NOT_ASKED))
    lessons: Mapping[str, Lesson] = field(default_factory=dict)
    teacher: TeacherUse | None = None
    secret: str = field(default="", repr=False)
    """Of pseudonyms; empty: they are hashes that anybody can make."""


@dataclass(frozen=True)
class Given:
    """What a build depends on besides the records and the spec."""

    withdrawals: tuple[Withdrawal, ...] = ()
    memory: HoldoutMemory = field(default_factory=HoldoutMemory)
    """Of the project's version before."""
    replay: ReplayPool | None = None
    """What ``dataset.replay`` names; None where it names nothing."""
    outside: Outside = field(default_factory=Outside)
    """The base model's tokenizer, and what a teacher made of documents."""
    index: OpenIndex | None = None
    """What passages are taken from; None where the spec trains without."""
