"""Splits examples into training and holdout. No training example resembles a held-out one, and new examples
do not move old ones to the other side.

A *unit* is a set of examples that must stay together: all examples of a group, joined with the groups that
have similar texts (similarity at least ``LEAK_SIMILARITY``) or belong to the same conversation
(``conversation_pairs``).

- A new unit: ``stratification.py`` chooses which new units are held out, by label.
- A unit with an example that was ever held out (``memory.py``) is held out whole.
- A unit that trained goes on training.
- A unit that was held out and grew too large for the holdout trains, without the examples that were held out
  and without those that resemble them.
- A new question that resembles one which was ever held out is a rewording of it, under another source and
  group. A unit that is half rewordings is held out. Elsewhere rewordings are on neither side.
- Retired examples and their rewordings are on neither side: enough verdicts were based on them, and new units
  replace them. The other examples of their unit stay where they are.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from tunewheel_contracts.errors import SLUG
from tunewheel_contracts.formats.label_prompts import LABEL_REQUEST
from tunewheel_contracts.principal import Trust
from tunewheel_contracts.pseudonyms import Pseudonyms

from tunewheel_curate.cleaning.normalization import Turn, comparison_key, turns_of
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.holdout.memory import (
    HELD_OUT_BEFORE,
    RETIRED,
    RETIRED_SKETCH,
    REWORDED,
    SURELY_REWORDED,
    ComparedRecords,
    HoldoutMemory,
    Seen,
)
from tunewheel_curate.holdout.stratification import Side, Unit, choose_holdout, choose_of_request
from tunewheel_curate.similarity.containment import LEAST_WORDS
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs, components
from tunewheel_curate.stage import HOLDOUT, TRAIN, Stage, drop, keep_all


def _no_examples() -> pl.DataFrame:
    return pl.DataFrame(schema=EXAMPLE_SCHEMA)


@dataclass(frozen=True)
class Split:
    """Frames with the columns of the examples, each sorted by ``example_id``."""

    train: pl.DataFrame
    holdout: pl.DataFrame
    neither: pl.DataFrame = field(default_factory=_no_examples)
    """Examples that were held out before, and are now retired or of a unit too large for the holdout."""


@dataclass
class _Rows:
    """A unit, as positions of its examples."""

    all: list[int] = field(default_factory=list)
    held_before: list[int] = field(default_factory=list)
    """The positions of the examples that were held out themselves."""
    reworded: list[int] = field(default_factory=list)
    """The positions of the examples that resemble one which was held out."""
    seen: Seen = Seen.NEVER
    """The closest relation of any of its examples to earlier versions."""


def split_rows(
    rows: pl.DataFrame,
    pairs: SimilarPairs,
    *,
    compared: ComparedRecords,
    memory: HoldoutMemory,
    fraction: float,
    trusted: Sequence[Trust],
    names: Pseudonyms,
) -> Stage:
    """Split ``rows`` (``record_id``, ``example_id``, ``label``, ``group``, ``trust``, ``attributes``,
    ``key``); write ``side``.

    About the ``fraction`` is held out, of answers with the trust ``trusted`` or else unverified ones. By
    ``names`` the memory knows retired groups. Reasons: ``held_out_before``; ``holdout_retired``; its trust
    for an answer of a held-out group that may not be judged by.
    """
    ids = [[record_id] for record_id in rows["record_id"]]
    marks = compared.marks(ids) if memory.marks else []
    seen = [memory.seen(one) for one in marks]
    resting = {group for group in rows["group"].unique() if memory.retired(names.of("group", group))}
    asked = [how is Seen.EXAMPLE and memory.rests(one) for how, one in zip(seen, marks, strict=True)]
    retired = rows["group"].is_in(list(resting)) | pl.Series(asked or [False] * len(ids), dtype=pl.Boolean)
    tired = memory.likeness(rows["key"], prefix=RETIRED_SKETCH) >= REWORDED
    retired |= tired & pl.Series([how is Seen.NEVER for how in seen] or [False] * len(ids), dtype=pl.Boolean)
    askable = trusted if rows["trust"].is_in(trusted).any() else (Trust.UNVERIFIED.value,)
    split = split_examples(
        rows,
        pairs,
        holdout=fraction,
        seen=seen,
        reworded=_reworded(rows["key"], seen, memory),
        retired=retired.to_list(),
        askable=rows["trust"].is_in(askable).to_list(),
        requests=rows.select(label_request()).to_series().to_list(),
    )
    # An answer that an earlier version held out stays held out as long as no better one is.
    held = split.holdout.filter(pl.col("trust").is_in(askable))
    held = held if held.height else split.holdout.filter(pl.col("trust") == Trust.UNVERIFIED.value)
    divided = rows.with_columns(
        pl.when(_among(held)).then(pl.lit(HOLDOUT)).otherwise(pl.lit(TRAIN)).alias("side")
    )
    reason = (
        pl.when(_among(split.neither))
        .then(pl.when(pl.lit(retired)).then(pl.lit(RETIRED)).otherwise(pl.lit(HELD_OUT_BEFORE)))
        .when(_among(split.holdout) & ~_among(held))
        .then("trust")
    )
    return drop("split", divided, divided.select(reason.alias("reason")).to_series())


def label_request() -> pl.Expr:
    """Return the name of the request for labels that a record answers, from the record's ``attributes``.
    Null: the attribute is missing, or is no valid name."""
    found = pl.col("attributes").str.json_path_match(f"$.{LABEL_REQUEST}")
    return pl.when(found.str.contains(SLUG)).then(found).alias(LABEL_REQUEST)


def _reworded(keys: pl.Series, seen: Sequence[Seen], memory: HoldoutMemory) -> list[bool]:
    """Return for each row whether its question, which was not held out, resembles one that was."""
    least = {Seen.NEVER: REWORDED, Seen.EXAMPLE: math.inf}
    alike = memory.likeness(keys).to_list() if seen else []
    return [one >= least.get(how, SURELY_REWORDED) for one, how in zip(alike, seen, strict=True)]


def _among(rows: pl.DataFrame) -> pl.Expr:
    return pl.col("record_id").is_in(rows["record_id"].implode())


def split_examples(
    examples: pl.DataFrame,
    pairs: Sequence[SimilarPair],
    *,
    holdout: float,
    seen: Sequence[Seen] = (),
    reworded: Sequence[bool] = (),
    retired: Sequence[bool] = (),
    askable: Sequence[bool] = (),
    requests: Sequence[str | None] = (),
) -> Split:
    """Split ``examples`` so that about the fraction ``holdout`` is held out.

    ``pairs`` are positions in ``examples``. ``seen`` is each example's relation to earlier versions (empty:
    there were none). ``reworded`` says which examples resemble one that was held out (empty: none),
    ``retired`` which ones are retired (empty: none), and ``askable`` which ones may be judged by (empty:
    all). The fraction is of those, and a new unit without one trains. A
    unit larger than the fraction trains, unless half of it was held out before. ``requests`` are the requests
    for labels that the examples answer (empty: none).
    """
    rows = _units(examples, pairs, seen, reworded)
    largest = max(1.0, holdout * examples.height)
    labels = [label or "" for label in examples["label"]]
    rests = {row for row, one in enumerate(retired) if one}
    counted = {
        name: [row for row in unit.all if row not in rests and (not askable or askable[row])]
        for name, unit in rows.items()
    }
    units = [
        Unit(name, Counter(labels[row] for row in counted[name]), _side(unit, largest))
        for name, unit in rows.items()
        if not rests.issuperset(unit.all)
    ]
    pools = defaultdict[str, list[Unit]](list)
    for unit in units:
        asked = {requests[row] or "" for row in counted[unit.name]} if requests else {""}
        if unit.labels or unit.side is Side.HOLDOUT:
            pools[max(asked, default="")].append(unit)
    held = choose_holdout(pools.pop("", []), fraction=holdout)
    trained = Counter(label for one in units if one.name not in held for label in one.labels)
    for _, pool in sorted(pools.items()):
        own = Counter(label for one in pool for label in one.labels)
        learnt = [label for label, count in own.items() if trained[label] > count]
        taken = choose_of_request(pool, fraction=holdout, learnt=learnt)
        trained.subtract(label for one in pool if one.name in taken for label in one.labels)
        held |= taken
    chosen = {row for name in held for row in rows[name].all}
    lost = {row for name, unit in rows.items() if name not in held for row in unit.held_before}
    lost |= _alike(lost, pairs) if lost else set()
    lost |= {row for unit in rows.values() for row in unit.reworded}
    lost = (lost - chosen) | rests
    return Split(
        train=_rows(examples, lambda row: row not in chosen and row not in lost),
        holdout=_rows(examples, lambda row: row in chosen and row not in lost),
        neither=_rows(examples, lambda row: row in lost),
    )


def _alike(rows: set[int], pairs: Sequence[SimilarPair]) -> set[int]:
    return {row for p in pairs if p.first in rows or p.second in rows for row in (p.first, p.second)}


def _rows(examples: pl.DataFrame, wanted: Callable[[int], bool]) -> pl.DataFrame:
    mask = pl.Series([wanted(row) for row in range(examples.height)], dtype=pl.Boolean)
    return examples.filter(mask).sort("example_id")


def _side(unit: _Rows, largest: float) -> Side:
    if unit.seen <= Seen.TRAINED and largest >= len(unit.all) <= 2 * len(unit.reworded):
        return Side.HOLDOUT
    if unit.seen is Seen.NEVER:
        return Side.NEW
    if unit.seen is Seen.TRAINED:
        return Side.TRAIN
    return Side.HOLDOUT if len(unit.all) <= max(largest, 2 * len(unit.held_before)) else Side.TRAIN


def _units(
    examples: pl.DataFrame, pairs: Sequence[SimilarPair], seen: Sequence[Seen], reworded: Sequence[bool]
) -> dict[str, _Rows]:
    """Return the units by name. A unit has the name of its first group."""
    groups = examples["group"].unique().sort().to_list()
    of_row = (examples["group"].rank("dense").cast(pl.Int64) - 1).to_numpy()
    columns = SimilarPairs.of(pairs)
    edges = SimilarPairs(of_row[columns.first], of_row[columns.second], columns.similarity)
    roots = components(len(groups), edges)
    units = defaultdict[str, _Rows](_Rows)
    for row, group in enumerate(of_row.tolist()):
        unit = units[groups[roots[group]]]
        unit.all.append(row)
        if seen:
            unit.seen = max(unit.seen, seen[row])
            unit.held_before += [row] if seen[row] is Seen.EXAMPLE else []
        if reworded and reworded[row]:
            unit.reworded.append(row)
    return units


MOST_GROUPS = 20
"""The most groups whose histories may hold a question. A question in more of them is an everyday question ("I
need help with my order") and does not identify a conversation."""

Moment = tuple[str | None, str]
"""The assistant's last turn and the user's turn after it; (None, question) at the start of a conversation."""


def conversation_pairs(records: pl.DataFrame) -> SimilarPairs:
    """Return pairs of positions in ``records`` (``input``, ``history`` and ``group``) of one conversation.

    A question with a history is searched in other histories together with the answer before it. A question
    without one is searched alone; as a later turn it counts only if it has ``LEAST_WORDS``.
    """
    threads = records.with_row_index("row").filter(pl.col("history").is_not_null())
    holders = defaultdict[Moment, dict[str, int]](dict)
    """The first row of each group whose history holds the moment."""
    histories: dict[int, list[Turn]] = {}
    for row, group, history in threads.select("row", "group", "history").iter_rows():
        histories[row] = turns_of(history)
        for moment in _moments(histories[row]):
            holders[moment].setdefault(group, row)
    edges = [
        (row, holder)
        for row, text in enumerate(records["input"].to_list() if holders else [])
        for holder in _of_few(holders.get(_asked(text, histories.get(row, [])), {}))
    ]
    first, second = np.array(edges, np.int64).reshape(-1, 2).T
    return SimilarPairs(first, second, np.ones(len(first)))


def join_conversations(records: pl.DataFrame, pairs: SimilarPairs, received: pl.DataFrame) -> Stage:
    """Add ``conversation_pairs`` to ``pairs``.

    They are found in the texts from before cleaning (``received``): the same turn, as a question and in
    another record's history, may be cleaned differently.
    """
    texts = received.select("record_id", "input", "history", "group")
    before = records.select("record_id").join(texts, on="record_id", how="left", maintain_order="left")
    return replace(keep_all("conversations", records), pairs=pairs.joined(conversation_pairs(before)))


def _of_few(holders: dict[str, int]) -> list[int]:
    return list(holders.values()) if len(holders) <= MOST_GROUPS else []


def _asked(text: str, history: list[Turn]) -> Moment:
    before = history[-1]["content"] if history and history[-1]["role"] == "assistant" else None
    return None if before is None else comparison_key(before), comparison_key(text)


def _moments(history: list[Turn]) -> set[Moment]:
    moments = set[Moment]()
    for place, turn in enumerate(history):
        if turn["role"] == "user":
            moments.add(_asked(turn["content"], history[:place]))
            if len(turn["content"].split()) >= LEAST_WORDS:
                moments.add((None, comparison_key(turn["content"])))
    return moments
