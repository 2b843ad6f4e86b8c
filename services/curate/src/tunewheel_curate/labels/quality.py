"""The findings of a build that people should decide about, and their sections in the data card."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.quality_report import BenchmarkOverlap, QualityReport, SemanticReport

from tunewheel_curate.evaluation.leakage import HELD_OUT
from tunewheel_curate.labels.review import review_counts, review_list
from tunewheel_curate.labels.suspects import Suspects

_WHAT = {
    "conflict": "records ask the same question as another and are labelled differently: the most trusted "
    "stays, if it is alone",
    "near_conflict": "records ask nearly the same as another and are labelled differently: the less trusted "
    "are left out, those trusted alike stay",
    "answer_conflict": "records of experts answer the same question, or nearly the same, differently: of the "
    "same question the newest stays, of nearly the same all whose answers differ in substance",
    "off_schema": "records bear a label that the schema does not know: left out",
    "suspect": "records bear a label that a classifier trained on the others doubts: kept",
}
_HELD_OUT = f"{HELD_OUT.capitalize()} are the project's own: what holds one does not train."


@dataclass(frozen=True)
class Quality:
    """Findings that are not in the funnel."""

    review: pl.DataFrame = field(default_factory=lambda: review_list([]))
    """``REVIEW_SCHEMA``."""
    suspects: Suspects = field(default_factory=Suspects)
    contamination: tuple[BenchmarkOverlap, ...] = ()
    semantic: SemanticReport | None = None
    quarantined: dict[str, int] = field(default_factory=dict)
    """How many records wait for a person, by reason."""

    def report(self, review: ArtifactRef | None) -> QualityReport:
        """Return the report for the manifest; ``review`` refers to the review list, if it has rows."""
        return QualityReport(
            review=review,
            review_counts=review_counts(self.review),
            contamination=self.contamination,
            semantic=self.semantic,
            quarantined=self.quarantined,
        )


def quality_sections(quality: Quality) -> list[str]:
    """Return the sections of the data card about ``quality``."""
    sections = [_for_review(quality), _contamination(quality)]
    if quality.semantic is not None:
        sections.append(_alike_in_meaning(quality.semantic))
    return sections


def _for_review(quality: Quality) -> str:
    counts = review_counts(quality.review)
    listed = "\n".join(f"- {count} {_WHAT[kind]}." for kind, count in counts.items())
    intro = f"`review.parquet` tells who labelled what (experts by their pseudonyms), and when:\n\n{listed}"
    parts = ["## For review", intro if counts else "No label contradicts another.", _doubts(quality.suspects)]
    return "\n\n".join(part for part in parts if part)


def _doubts(suspects: Suspects) -> str:
    if not suspects.labelled:
        return ""
    if suspects.why_not is not None:
        return f"No classifier judged the labels: {suspects.why_not}."
    none = " It doubts none." if suspects.found.is_empty() else ""
    return f"A classifier judged {suspects.looked_at} of {suspects.labelled} labelled examples.{none}"


def _contamination(quality: Quality) -> str:
    if not quality.contamination:
        return "## Contamination\n\nCompared with no benchmark."
    rows = [
        "| benchmark | texts | of which in the examples | dropped | left in train | in holdout |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    rows += [
        f"| {o.benchmark} | {o.items} | {o.overlapping_items} | {o.dropped} | {o.train} | {o.holdout} |"
        for o in quality.contamination
    ]
    return "\n\n".join(["## Contamination", "\n".join(rows), _HELD_OUT])


def _alike_in_meaning(report: SemanticReport) -> str:
    return (
        f"## Alike in meaning\n\nBy static embeddings, at a cosine of {report.threshold} and more: "
        f"{report.pairs} pairs among {report.examples} examples, in {report.clusters} clusters; "
        f"{report.dropped} dropped. "
        "No cluster lies on both sides of the split."
    )
