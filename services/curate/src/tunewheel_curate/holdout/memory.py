"""The memory of holdouts: it records what was held out and what trained, so that no example changes sides.

The memory holds *marks*, which are hashes. A held-out example leaves a mark of its question (the normalised
input), of each of its sources and of its group. Its duplicates leave the same marks, since one of them may
replace it in a later version. A retired example leaves another mark of its question. A training example
leaves only a mark of its group. The memory holds no text, so it may outlive a withdrawn source or an erased
person. With ``TUNEWHEEL_PSEUDONYM_SECRET`` set, the marks are keyed: nobody without the secret can find out
whether a customer was held out. Then the memory also holds *sketches* of the questions (``sketches.py``), so
that a question is recognised in other words, under another source and group. They stand among the marks: a
release that does not know them carries them on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from io import BytesIO

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.pseudonyms import Pseudonyms

from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.holdout.sketches import SHORT_WORDS, STANDARD_ERROR, likeness, short_runs, sketches_of
from tunewheel_curate.similarity.containment import LONG_WORDS, only_words
from tunewheel_curate.stage import HOLDOUT, TRAIN, Stage, drop, keep_all

HELD_OUT_BEFORE = "held_out_before"
"""The drop reason of an example that an earlier version held out and that can be on neither side now."""
RETIRED = "holdout_retired"
"""The drop reason of an example that was used for enough verdicts."""
SECRET = "TUNEWHEEL_PSEUDONYM_SECRET"
ANOTHER_SECRET = (
    "is not the one that the version before was built with, and without that one nothing tells what was held "
    "out; set it to what it was"
)
MARK_DIGITS = 32
"""128 bits."""
LEAK_SIMILARITY = 0.6
"""Jaccard similarity of word pairs from which a question gives another one away."""
REWORDED = LEAK_SIMILARITY - 3 * STANDARD_ERROR
"""The estimated similarity from which a new question counts as a rewording of a held-out one: nearly all
pairs with ``LEAK_SIMILARITY`` reach it."""
SURELY_REWORDED = LEAK_SIMILARITY + 3 * STANDARD_ERROR
"""The same for a question that may have trained before. The version that held the other one out would have
kept so similar a pair together."""
SKETCH, RETIRED_SKETCH = "sketch-1-", "retired-sketch-1-"
"""The prefixes of sketches among the marks. The number changes with what a sketch is."""
MARKED_COLUMNS = ("record_id", "kind", "source_id", "group", "key")


class Seen(IntEnum):
    """How an example is related to earlier versions. A greater value is a closer relation."""

    NEVER = 0
    TRAINED = 1
    """An example of its group trained, and none was held out."""
    GROUP = 2
    """Another example of its group was held out."""
    EXAMPLE = 3
    """It was held out itself: the same question, or a version of the same source."""


@dataclass(frozen=True)
class Marks:
    """The marks of one example."""

    own: frozenset[str]
    """The marks of its questions and sources."""
    group: frozenset[str]
    trained: frozenset[str]
    """The mark of its group, which an example leaves even if it trains."""


class HoldoutMemory:
    """A set of marks, which only grows. The marks are keyed if ``names`` has a secret."""

    def __init__(self, marks: Iterable[str] = (), names: Pseudonyms | None = None) -> None:
        self.marks = frozenset(marks)
        """The marks as stored: keyed if there is a secret."""
        self._names = names if names is not None and names.keyed else None

    @classmethod
    def read(cls, data: bytes, names: Pseudonyms) -> HoldoutMemory:
        """Read a memory that ``to_frame`` wrote as Parquet. Marks without a key become keyed.

        Raises:
            InvalidSpec: the marks are keyed by another secret, so no example could be recognised.
        """
        frame = pl.read_parquet(BytesIO(data))
        memory = cls(frame["mark"], names)
        if "key" not in frame.columns:
            return cls(map(memory._kept, memory.marks), names)
        if not (frame["key"] == names.check).all():
            raise InvalidSpec(field=SECRET, reason=ANOTHER_SECRET)
        return memory

    def to_frame(self) -> pl.DataFrame:
        """Return the sorted marks in the column ``mark``. The column ``key`` identifies the secret."""
        frame = pl.DataFrame({"mark": sorted(self.marks)}, schema={"mark": pl.String()})
        return frame if self._names is None else frame.with_columns(key=pl.lit(self._names.check))

    def seen(self, marks: Marks) -> Seen:
        """Return how an example is related to earlier versions."""
        if self._holds_any(marks.own):
            return Seen.EXAMPLE
        if self._holds_any(marks.group):
            return Seen.GROUP
        return Seen.TRAINED if self._holds_any(marks.trained) else Seen.NEVER

    def retired(self, group: str) -> bool:
        """Return whether the group with this pseudonym is retired: never held out nor trained on again.
        Earlier releases retired whole groups."""
        return self._holds_any([_mark("retired", group)])

    def rests(self, marks: Marks) -> bool:
        """Return whether the question of an example, or of one of its duplicates, is retired."""
        return self._holds_any(_mark("retired", one) for one in marks.own)

    def retiring(self, groups: Iterable[str] = (), rows: Iterable[ChatExample] = ()) -> HoldoutMemory:
        """Return this memory with the ``groups`` (pseudonyms), and the questions of the held-out ``rows``,
        added as retired."""
        keys = pl.Series([comparison_key(_question(row)) for row in rows], dtype=pl.String)
        marks = (_mark("retired", one) for one in (*groups, *(_mark("question", key) for key in keys)))
        return self.extended((), marks).sketched(keys, prefix=RETIRED_SKETCH)

    def sketched(self, keys: pl.Series, *, prefix: str = SKETCH) -> HoldoutMemory:
        """Return this memory with sketches of the questions ``keys`` added, and with marks of the words of
        short ones. Without a secret nothing is added."""
        if self._names is None:
            return self
        new = (f"{prefix}{one}" for one in sketches_of(keys, self._names.key(SKETCH)))
        short = (words for words in only_words(keys) if words.count(" ") < SHORT_WORDS)
        return HoldoutMemory(self.marks.union(new), self._names).extended(
            (), (_mark(prefix, w) for w in short)
        )

    def likeness(self, keys: pl.Series, *, prefix: str = SKETCH) -> pl.Series:
        """Return for each of ``keys`` how similar it is to the nearest held-out question, as estimated; 0 if
        it resembles none. With the prefix ``RETIRED_SKETCH`` only retired questions count."""
        held = [one.removeprefix(prefix) for one in self.marks if one.startswith(prefix)]
        if self._names is None or not held:
            return pl.repeat(0.0, len(keys), dtype=pl.Float32, eager=True)
        found = likeness(keys, held, self._names.key(SKETCH), least=REWORDED)
        for place, words in enumerate(only_words(keys)):
            if self._holds_any(_mark(prefix, run) for run in short_runs(words)):
                found[place] = 1
        return pl.Series(found)

    def holds_question(self, key: str) -> bool:
        """Return whether the question with this ``comparison_key`` was held out."""
        return self._holds_any([_mark("question", key)])

    def extended(self, held: Iterable[Marks], trained: Iterable[str] = ()) -> HoldoutMemory:
        """Return this memory with the marks of newly held-out examples and of training examples added."""
        new = set(trained)
        for one in held:
            new.update(one.own, one.group)
        return HoldoutMemory(self.marks.union(map(self._kept, new)), self._names)

    def _holds_any(self, marks: Iterable[str]) -> bool:
        return bool(self.marks) and any(self._kept(mark) in self.marks for mark in marks)

    def _kept(self, mark: str) -> str:
        return mark if self._names is None else self._names.mark(mark)


class ComparedRecords:
    """The records that reached deduplication, and for each dropped one the record that replaced it."""

    def __init__(self, records: pl.DataFrame, dropped: pl.DataFrame | None = None) -> None:
        """``records`` has ``MARKED_COLUMNS`` (``key`` is the normalised question), ``dropped`` has
        ``DROPPED_SCHEMA``. Without ``dropped`` there are no duplicates."""
        self.records = records
        self._clusters = {} if dropped is None else clusters_of(dropped)

    def members(self, record_ids: Sequence[Sequence[str]]) -> list[list[str]]:
        """Return, for each example, its records and their dropped duplicates."""
        return [[name for i in ids for name in (i, *self._clusters.get(i, ()))] for ids in record_ids]

    def keys(self, record_ids: Sequence[Sequence[str]]) -> pl.Series:
        """Return the distinct questions of the records and of their dropped duplicates, sorted."""
        return self._named(self.members(record_ids))["key"].unique().sort()

    def marks(self, record_ids: Sequence[Sequence[str]]) -> list[Marks]:
        """Return the marks of each example, given the records that it was made of."""
        members = self.members(record_ids)
        marked_records = self._named(members)
        held = {group: _mark("group", group) for group in marked_records["group"].unique()}
        trained = {group: _mark("trained", group) for group in held}
        by_record = {
            record_id: ({_mark("question", key), _mark("source", kind, source_id)}, group)
            for record_id, kind, source_id, group, key in marked_records.iter_rows()
        }
        marked: list[Marks] = []
        for names in members:
            found = [by_record[name] for name in names if name in by_record]
            own: set[str] = set().union(*(own for own, _ in found))
            groups = {group for _, group in found}
            marked.append(
                Marks(
                    own=frozenset(own),
                    group=frozenset(held[group] for group in groups),
                    trained=frozenset(trained[group] for group in groups),
                )
            )
        return marked

    def trained(self, record_ids: Sequence[Sequence[str]]) -> frozenset[str]:
        """Return the marks that training examples leave; the arguments are as in ``marks``."""
        groups = self._named(self.members(record_ids))["group"].unique()
        return frozenset(_mark("trained", group) for group in groups)

    def _named(self, members: Sequence[Sequence[str]]) -> pl.DataFrame:
        wanted = pl.Series([name for names in members for name in names], dtype=pl.String).unique()
        return self.records.select(MARKED_COLUMNS).filter(pl.col("record_id").is_in(wanted.implode()))


def remember(rows: pl.DataFrame, *, compared: ComparedRecords, memory: HoldoutMemory) -> Stage:
    """Extend ``memory`` by the ``side`` of each of ``rows``."""
    held, trained = (
        [[record_id] for record_id in rows.filter(pl.col("side") == side)["record_id"]]
        for side in (HOLDOUT, TRAIN)
    )
    extended = memory.extended(compared.marks(held), compared.trained(trained))
    extended = extended.sketched(compared.keys(held))
    return replace(keep_all("memory", rows), memory=extended)


def drop_related(records: pl.DataFrame, *, memory: HoldoutMemory) -> Stage:
    """Drop ``records`` (``MARKED_COLUMNS``) whose question, in these or nearly these words, source or group
    is or was held out. Reason: ``held_out``."""
    ids = [[record_id] for record_id in records["record_id"]]
    held = [memory.seen(marks) >= Seen.GROUP for marks in ComparedRecords(records).marks(ids)]
    reasons = pl.Series(held, dtype=pl.Boolean) | (memory.likeness(records["key"]) >= REWORDED)
    return drop("holdout", records, _where(reasons, "held_out"))


def drop_remembered(rows: pl.DataFrame, *, memory: HoldoutMemory) -> Stage:
    """Drop ``rows`` (with ``messages``) that ask a question which was ever held out, or that hold one as a
    line or a sentence; from ``LONG_WORDS`` words on also one that resembles it. The memory is asked because
    the ticket itself may be gone. Reason: ``held_out_before``."""
    keys = [[comparison_key(text) for text in _parts(turns)] for turns in rows["messages"]]
    long = {key for of_row in keys for key in of_row if key.count(" ") + 1 >= LONG_WORDS}
    near = pl.Series(sorted(long), dtype=pl.String)
    resembling = frozenset(near.filter(memory.likeness(near) >= REWORDED))
    held = [any(key in resembling or memory.holds_question(key) for key in of_row) for of_row in keys]
    return drop("holdout", rows, _where(pl.Series(held, dtype=pl.Boolean), HELD_OUT_BEFORE))


def _where(rows: pl.Series, reason: str) -> pl.Series:
    """Return the ``reason`` at each true row, else null."""
    return pl.Series([reason if one else None for one in rows], dtype=pl.String)


_SENTENCE_END = re.compile(r"(?<=[.?!])\s+|\n")
_MARK = re.compile(r"^[\s#>*-]*(?:Q:|\d+[.)])?\s*|(?<![\s*])[\s*]+$")
"""The mark before a heading, a list item or a question in a FAQ. It matches only at the beginning of a run of
blanks or stars: tried from every character, a long run would take hours."""


def _parts(turns: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Yield the user's questions, and every line and sentence of all turns, with and without its list
    mark."""
    for turn in turns:
        if turn["role"] == "user":
            yield turn["content"]
        for text in {*turn["content"].split("\n"), *_SENTENCE_END.split(turn["content"])}:
            yield from {text, _MARK.sub("", text)}


def clusters_of(duplicates: pl.DataFrame) -> dict[str, list[str]]:
    """Return, for every record that stayed, the duplicates that were dropped for it, directly or not."""
    pairs = duplicates.filter(pl.col("duplicate_of").is_not_null()).select("record_id", "duplicate_of")
    gave_way: dict[str, str] = dict(pairs.iter_rows())
    clusters: dict[str, list[str]] = {}
    for record_id in gave_way:
        best = record_id
        while best in gave_way:
            best = gave_way[best]
        clusters.setdefault(best, []).append(record_id)
    return clusters


def _question(row: ChatExample) -> str:
    """Return the text that ``asked_text`` gave the row's question."""
    *asked, _ = (turn.content for turn in row.messages if turn.role != "system")
    return "\n\n".join(asked)


def _mark(kind: str, *names: str) -> str:
    return content_sha256([kind, *names])[:MARK_DIGITS]
