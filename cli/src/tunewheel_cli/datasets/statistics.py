"""How long the examples of a dataset version are, as a plan wants it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.planning.plan import DatasetStats

if TYPE_CHECKING:
    from tunewheel_cli.datasets.versions import Version

CHARACTERS_PER_TOKEN = 4
"""The usual estimate for English, and curate's where it has no tokenizer: the command line has none."""
AROUND = 5
"""Tokens that a chat template writes around a message."""


async def training_stats(version: Version) -> DatasetStats:
    """Statistics of the rows that ``version`` trains on, tokens estimated from characters.

    Raises:
        InvalidSpec: there are no such rows.
        ArtifactMissing, CorruptArtifact, TransientError: the store does not hold them.
    """
    frame = await version.frame(version.manifest.train)
    return stats_of_rows(frame["messages"].to_list())


def stats_of_rows(conversations: Sequence[Sequence[Mapping[str, Any]]]) -> DatasetStats:
    """Of each conversation the last answer is learnt; the system prompt that all begin with is shared."""
    if not conversations:
        raise InvalidSpec(field="dataset", reason="has no rows to train on; build the dataset again")
    lengths = [sum(_tokens(message["content"]) for message in turns) for turns in conversations]
    learnt = sum(_tokens(turns[-1]["content"]) for turns in conversations)
    first = [turns[0]["content"] if turns[0]["role"] == "system" else "" for turns in conversations]
    return DatasetStats(
        examples=len(lengths), tokens=sum(lengths), longest=max(lengths), learnt=learnt,
        prefix=_shared(min(first), max(first)) // CHARACTERS_PER_TOKEN,
    )  # fmt: skip


def _shared(least: str, most: str) -> int:
    """Characters that two texts begin with; all that lie between them in order begin with these too."""
    pairs = enumerate(zip(least, most, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(least), len(most)))


def _tokens(content: str) -> int:
    return math.ceil(len(content) / CHARACTERS_PER_TOKEN) + AROUND
