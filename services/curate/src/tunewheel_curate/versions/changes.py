"""By how much a version differs from the one before it, and by how much it may.

A figure may differ by a margin that nobody minds, or by what chance explains, whichever is more. Rows of one
group are one observation: the variance of a mean is that of the groups' sums (Liang and Zeger 1986,
"Longitudinal data analysis using generalized linear models"), around the mean of both versions together. All
figures of a version share one error rate, ``FALSE_ALARMS``. Most rows are in both versions. Chance is then
smaller than it is taken for here, never greater.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.dataset import ExampleFormat, FunnelStage

MARGIN = 0.1
"""By how much a share may differ, whatever the number of rows."""
LENGTH_MARGIN = math.log(1.5)
"""By how much the mean logarithm of a number of words may differ: by half as many words again."""
FALSE_ALARMS = 0.01
"""Of versions that differ by chance alone, the share in which some figure differs by more than allowed."""
_NO_NAME = re.compile(r"[^\w .,:-]")
_TAKEN_BACK = "withdrawal"
"""The stage of the funnel that drops what people took back, which is no change of the data."""


@dataclass(frozen=True)
class Composition:
    """What a version is compared by."""

    rows: pl.DataFrame
    """Its examples: example_id, format, group, label, source, question_words and answer_words."""
    funnel: tuple[FunnelStage, ...]

    def without(self, example_ids: Collection[str]) -> Composition:
        """Return the composition without some examples."""
        return Composition(self.rows.filter(~pl.col("example_id").is_in(list(example_ids))), self.funnel)


@dataclass(frozen=True)
class Change:
    """One figure of two versions; ``now`` may lie ``allowed`` from ``before``."""

    figure: str
    before: float
    now: float
    allowed: float

    @property
    def low(self) -> float:
        return self.before - self.allowed

    @property
    def high(self) -> float:
        return self.before + self.allowed


@dataclass(frozen=True)
class _Figure:
    name: str
    before: float
    now: float
    error: float
    """Standard error of the difference."""
    groups: int
    """How many groups the version with fewer of them has."""
    margin: float


def changes_between(before: Composition, now: Composition) -> tuple[Change, ...]:
    """Return the figures that could differ by more than their margins: shares of labels and of kinds of
    sources, lengths, and what each stage drops."""
    from scipy.stats import t

    answers = [one.rows.filter(pl.col("format") == ExampleFormat.ANSWER.value) for one in (before, now)]
    figures = [*_shares("label", *answers), *_shares("source", before.rows, now.rows)]
    for column in ("question_words", "answer_words"):
        logs = [frame.select("group", pl.col(column).cast(pl.Float64).log1p()) for frame in answers]
        name = f"mean logarithm of {column.replace('_', ' ')}"
        figures += [_figure(name, logs[0], logs[1], LENGTH_MARGIN)] if all(f.height for f in logs) else []
    figures += _dropped(before, now)
    level = 1 - FALSE_ALARMS / max(1, len(figures)) / 2
    return tuple(
        Change(
            one.name, one.before, one.now, max(one.margin, float(t.ppf(level, one.groups - 1)) * one.error)
        )
        for one in figures
        if one.groups > 1
    )


def _shares(column: str, before: pl.DataFrame, now: pl.DataFrame) -> list[_Figure]:
    """Return the shares of the values of ``column``. Two shares below the margin cannot differ by more."""
    before, now = before.drop_nulls(column), now.drop_nulls(column)
    if before.is_empty() or now.is_empty():
        return []
    values = pl.concat([before[column], now[column]]).unique().sort()
    figures, names = list[_Figure](), Counter[str]()
    for value in values:
        name = f"share of {column} {_NO_NAME.sub('_', value)[:80]}"
        names[name] += 1  # other values may have the same name
        name += f" ({names[name]})" if names[name] > 1 else ""
        one, other = (
            frame.select("group", (pl.col(column) == value).cast(pl.Float64)) for frame in (before, now)
        )
        figure = _figure(name, one, other, MARGIN)
        figures += [figure] if max(figure.before, figure.now) >= MARGIN else []
    return figures


def _figure(name: str, before: pl.DataFrame, now: pl.DataFrame, margin: float) -> _Figure:
    """Return the means of a column beside ``group``, the same for every order of the rows and groups: a
    version that is built again has the same bytes."""
    mean = math.fsum(pl.concat([before, now]).to_series(1)) / (before.height + now.height)
    grouped = [frame.group_by("group").agg(pl.last()).to_series(1) for frame in (before, now)]
    sums = [[math.fsum(values) - mean * len(values) for values in groups] for groups in grouped]
    errors = [_error(values, frame.height) for values, frame in zip(sums, (before, now), strict=True)]
    means = [
        mean + math.fsum(values) / frame.height for values, frame in zip(sums, (before, now), strict=True)
    ]
    return _Figure(name, means[0], means[1], math.hypot(*errors), min(map(len, sums)), margin)


def _error(sums: Sequence[float], rows: int) -> float:
    """Return the standard error of the mean of ``rows`` whose deviations are summed by group."""
    return math.sqrt(math.fsum(value**2 for value in sums) * len(sums) / max(1, len(sums) - 1)) / rows


def _dropped(before: Composition, now: Composition) -> list[_Figure]:
    """Return the share of records that each stage drops. A group counts as one record, because the funnel
    does not know groups."""
    earlier, figures = {stage.stage: stage for stage in before.funnel}, list[_Figure]()
    groups = [one.rows["group"].n_unique() / max(1, one.rows.height) for one in (before, now)]
    for stage in now.funnel:
        both = (earlier.get(stage.stage), stage)
        if both[0] is None or not both[0].entered or not stage.entered or stage.stage == _TAKEN_BACK:
            continue
        sizes = [one.entered * part for one, part in zip((both[0], stage), groups, strict=True)]
        shares = [1 - one.left / one.entered for one in (both[0], stage)]
        mean = (shares[0] * sizes[0] + shares[1] * sizes[1]) / sum(sizes)
        error = math.sqrt(mean * (1 - mean) * sum(1 / size for size in sizes))
        if max(shares) >= MARGIN:
            name = f"share that {stage.stage} drops"
            figures.append(_Figure(name, shares[0], shares[1], error, int(min(sizes)), MARGIN))
    return figures


def in_words(changes: Sequence[Change]) -> dict[str, str]:
    """Return what each figure is and may be, by its name."""
    return {
        one.figure: f"{one.now:.3g}; in the version before {one.before:.3g}, allowed are {one.low:.3g} to "
        f"{one.high:.3g}"
        for one in changes
    }
