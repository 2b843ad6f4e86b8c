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


def redact_records(
    records: pl.DataFrame, policy: PiiPolicy, *, secret: str = "", own_words: Collection[str] = ()
) -> Stage:
    """Apply ``policy`` to ``COLUMNS`` and to the turns in ``history``.

    ``redact`` writes placeholders. ``pseudonymise`` writes stand-ins, the same for one value within a group.
    ``reject`` drops the record with reason ``pii``. ``keep`` changes nothing. ``secret`` and ``own_words``
    are passed to ``Redactor``. The stage's ``counts`` holds the number of findings by entity.

    Raises:
        InvalidSpec: see ``Redactor``.
    """
    project = records["project"][0] if records.height else ""
    redactor = Redactor(policy, project=project, secret=secret, own_words=own_words)
    if policy.action == "keep":
        return drop("redaction", records, pl.lit(None, dtype=pl.String))
    groups = records["group"]
    clean = records.with_columns(
        *(redactor.clean(records[name], groups) for name in TEXTS),
        *(redactor.clean_answers(records[name], groups) for name in ANSWERS),
    )
    clean, touched = _with_histories(clean, redactor)
    for name in COLUMNS:
        touched |= clean[name].ne_missing(records[name])
    rejects = pl.lit(touched) & pl.lit(policy.action == "reject")
    stage = drop("redaction", clean, pl.when(rejects).then(pl.lit("pii")))
    return counted(stage, records, redactor.tallies)


def _with_histories(records: pl.DataFrame, redactor: Redactor) -> tuple[pl.DataFrame, pl.Series]:
    """Return ``records`` with redacted histories, and which records have a turn with personal data."""
    talks = [turns_of(history) for history in records["history"]]
    owners = [row for row, turns in enumerate(talks) for _ in turns]
    said = pl.Series([turn["content"] for turns in talks for turn in turns], dtype=pl.String)
    redacted = redactor.clean(said, records["group"].gather(owners), owners)
    touched = {owners[place] for place in redacted.ne(said).arg_true()}
    texts = iter(redacted)
    histories = [
        canonical_json([turn | {"content": next(texts)} for turn in turns]).decode() if turns else None
        for turns in talks
    ]
    changed = pl.Series([row in touched for row in range(records.height)], dtype=pl.Boolean)
    return records.with_columns(pl.Series("history", histories, dtype=pl.String)), changed
