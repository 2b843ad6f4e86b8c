"""Redacts personal data in the questions, answers and histories of records."""

from __future__ import annotations

from collections.abc import Collection

import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.identity import canonical_json
from tunewheel_redaction.redaction import Redactor

from tunewheel_curate.cleaning.normalization import turns_of
from tunewheel_curate.stage import Stage, counted, drop

TEXTS = ("title", "input")
ANSWERS = ("output", "rejected_output")
COLUMNS = (*TEXTS, *ANSWERS)
CUT = "cut"
"""The column with the text that cleaning cut, for the lineage."""
MOST_CUT = 4_000
"""The most characters of a record's cut text that the lineage keeps. The text is redacted first, because no
recogniser finds half of an address or a key."""


def redact_records(
    records: pl.DataFrame, policy: PiiPolicy, *, secret: str = "", own_words: Collection[str] = ()
) -> Stage:
    """Apply ``policy`` to ``COLUMNS``, to ``CUT`` where there is one, and to the turns in ``history``.

    ``redact`` writes placeholders. ``pseudonymise`` writes stand-ins, the same for one value within a group.
    ``reject`` drops the record with reason ``pii``. ``keep`` changes nothing. ``secret`` and ``own_words``
    are passed to ``Redactor``. The stage's ``counts`` holds the number of findings by entity.

    Raises:
        InvalidSpec: see ``Redactor``.
    """
    project = records["project"][0] if records.height else ""
    redactor = Redactor(policy, project=project, secret=secret, own_words=own_words)
    if policy.action == "keep":
        return drop("redaction", _shortened(records), pl.lit(None, dtype=pl.String))
    groups = records["group"]
    clean = records.with_columns(
        *(redactor.clean(records[name], groups) for name in TEXTS),
        *(redactor.clean_answers(records[name], groups) for name in ANSWERS),
    )
    if CUT in records.columns:  # text that trains nothing: it neither counts nor rejects a record
        aside = Redactor(policy, project=project, secret=secret, own_words=own_words)
        clean = clean.with_columns(aside.clean(records[CUT], groups))
    clean, touched = _with_histories(_shortened(clean), redactor)
    for name in COLUMNS:
        touched |= clean[name].ne_missing(records[name])
    rejects = pl.lit(touched) & pl.lit(policy.action == "reject")
    stage = drop("redaction", clean, pl.when(rejects).then(pl.lit("pii")))
    return counted(stage, records, redactor.tallies)


def _shortened(records: pl.DataFrame) -> pl.DataFrame:
    return records.with_columns(pl.col(CUT).str.slice(0, MOST_CUT)) if CUT in records.columns else records


def _with_histories(records: pl.DataFrame, redactor: Redactor) -> tuple[pl.DataFrame, pl.Series]:
    """Return ``records`` with redacted histories, and which records have a turn with personal data. The
    turns of a person are searched once more together, since a card number may be spread over them."""
    talks = [turns_of(history) for history in records["history"]]
    owners = [row for row, turns in enumerate(talks) for _ in turns]
    said = pl.Series([turn["content"] for turns in talks for turn in turns], dtype=pl.String)
    texts = iter(redactor.clean(said, records["group"].gather(owners), owners))
    inputs = records["input"].to_list()
    histories: list[str | None] = [None] * records.height
    changed = [False] * records.height
    for row, turns in enumerate(talks):
        if not turns:
            continue
        new = [turn | {"content": next(texts)} for turn in turns]
        asked = [turn for turn in new if turn["role"] == "user"]
        whole = [*(turn["content"] for turn in asked), inputs[row]]
        *whole, inputs[row] = redactor.clean_split(whole, records["group"][row], row)
        for turn, text in zip(asked, whole, strict=True):
            turn["content"] = text
        histories[row] = canonical_json(new).decode()
        changed[row] = new != turns
    columns = {"history": histories, "input": inputs}
    clean = records.with_columns(pl.Series(name, own, dtype=pl.String) for name, own in columns.items())
    return clean, pl.Series(changed, dtype=pl.Boolean)
