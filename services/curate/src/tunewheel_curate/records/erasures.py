"""Selects the rows of the record table that erasures concern. ``contracts`` folds the erasures themselves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

import polars as pl
from tunewheel_contracts.erasures import Erasure

Copy = tuple[str, str]
"""A project and a ``record_id``, which several rows may share: the same content, perhaps under another
customer. Or a project and ``kind/source_id``: the versions of a source that name nobody."""
_MOMENT = pl.Datetime("us", "UTC")


def erased(erasures: Collection[Erasure], remembered: Mapping[Copy, datetime] | None = None) -> pl.Expr:
    """Return, for rows of the record table, whether one of ``erasures`` concerns them: they name the person
    or the source, or they are copies of a row that does. ``remembered``: see ``erased_until``."""
    return _up_to(erased_until(erasures, remembered))


def erased_until(erasures: Collection[Erasure], remembered: Mapping[Copy, datetime] | None = None) -> pl.Expr:
    """Return up to when the copies of a row's record are erased; null: no erasure takes one of them.

    A ticket that was published under a wrong customer and then under the right one is one record in two rows,
    and both hold the text of the person. The same is true of an earlier version of the ticket that names
    nobody. ``remembered`` has the moments of copies that are erased already.
    """
    found = [pl.lit(None, dtype=_MOMENT)]
    for erasure in erasures:
        subject = (
            pl.col("group") == erasure.customer
            if erasure.customer is not None
            else pl.col("source_id") == erasure.source_id
        )
        until = pl.lit(erasure.until, dtype=_MOMENT)
        named = (pl.col("project") == erasure.project) & subject & _up_to(until)
        found.append(pl.when(named).then(until))
    record, source = ("project", "record_id"), ("project", "kind", "source_id")
    known = remembered or {}
    if known:
        found.append(_looked_up(known, record))
    if len(found) == 1:
        return found[0]
    until = pl.max_horizontal(found)
    of_source = pl.max_horizontal(until.max().over(source), *([_looked_up(known, source)] if known else []))
    of_source = pl.when(pl.col("group") == pl.col("source_id")).then(of_source)
    return pl.max_horizontal(until.max().over(record), of_source)


def _looked_up(known: Mapping[Copy, datetime], columns: tuple[str, ...]) -> pl.Expr:
    places = ["/".join(copy) for copy in known]
    return pl.concat_str(columns, separator="/").replace_strict(
        places, list(known.values()), default=None, return_dtype=_MOMENT
    )


def _up_to(until: pl.Expr) -> pl.Expr:
    return ((pl.col("published_at") <= until) | (pl.col("occurred_at") <= until)).fill_null(False)
