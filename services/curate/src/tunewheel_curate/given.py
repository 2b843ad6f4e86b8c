"""The inputs of a build other than the records and the spec."""

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
    """Inputs that are not on the log. The first attempt at a build pins them (``builds/outside.py``)."""

    tokens: Tokens = field(default_factory=lambda: estimating("", NOT_ASKED))
    lessons: Mapping[str, Lesson] = field(default_factory=dict)
    teacher: TeacherUse | None = None
    secret: str = field(default="", repr=False)
    """The key of pseudonyms. Without a key pseudonyms are plain hashes, which anybody can compute."""


@dataclass(frozen=True)
class Given:
    """All inputs of a build other than the records and the spec."""

    withdrawals: tuple[Withdrawal, ...] = ()
    memory: HoldoutMemory = field(default_factory=HoldoutMemory)
    """The memory of the project's previous version."""
    replay: ReplayPool | None = None
    """The conversations of ``dataset.replay``. None: the spec names no source."""
    outside: Outside = field(default_factory=Outside)
    """The base model's tokenizer and the teacher's questions and answers about documents."""
    index: OpenIndex | None = None
    """The index whose passages go into prompts. None: the spec trains without passages."""
