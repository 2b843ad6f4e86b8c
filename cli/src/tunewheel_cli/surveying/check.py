"""``publish --check``: what a file holds and what is wrong with it, before anything is published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.topics import MAX_MESSAGE_BYTES

from tunewheel_cli.publishing.items import Kind
from tunewheel_cli.publishing.lines import OnBytes
from tunewheel_cli.publishing.sources import open_source
from tunewheel_cli.surveying.near import near_duplicates
from tunewheel_cli.surveying.survey import Survey, refusals_of
from tunewheel_cli.surveying.tokens import measure

if TYPE_CHECKING:
    from tunewheel_cli.datasets.statistics import Measured


@dataclass(frozen=True, slots=True)
class Check:
    """The findings about one path."""

    path: str
    form: str | None
    notes: tuple[str, ...]
    survey: Survey
    tokens: Measured | None
    """None: there are no examples."""
    compared: int
    """Different questions that near-duplicates were looked for among."""
    near: int
    personal: Counter[str] | None
    """None: nothing looked for personal data."""
    looked_at: int
    """Texts that personal data were looked for in."""

    @property
    def labels(self) -> dict[str, int]:
        """How often each label occurs, the most frequent first."""
        survey = self.survey
        name = survey.shape.label if survey.is_structured else None
        values = survey.shape.properties[name].values if name else survey.texts
        return dict(values.counts.most_common()) if values.labels else {}

    def as_json(self) -> dict[str, Any]:
        survey, tokens = self.survey, self.tokens
        return {
            "path": self.path,
            "form": self.form,
            "notes": self.notes,
            "by_kind": dict(survey.kinds),
            "refused": survey.refused,
            "refusals": [
                {"count": count, "where": where, "field": name, "reason": reason}
                for count, where, name, reason in refusals_of(survey)
            ],
            "questions": survey.distinct,
            "exact_duplicates": survey.duplicates,
            "near_duplicates": self.near,
            "compared": self.compared,
            "contradictions": survey.contradictions,
            "rejected_answers": survey.rejected,
            "without_expert": survey.unvalidated,
            "tokens": None
            if tokens is None
            else {
                "all": tokens.stats.tokens,
                "learnt": tokens.stats.learnt,
                "longest": tokens.stats.longest,
                "tokenizer": tokens.tokenizer,
                "estimated_because": tokens.reason,
            },
            "personal_data": None if self.personal is None else dict(self.personal),
            "looked_at": self.looked_at,
            "labels": self.labels,
        }


def check_file(
    path: Path,
    *,
    kind: Kind | None = None,
    maps: Sequence[str] = (),
    base_model: str | None = None,
    on_bytes: OnBytes | None = None,
) -> Check:
    """Read all of ``path`` and publish nothing. ``base_model``: whose tokens are counted.

    Raises SourceUnusable, InvalidOption: see ``open_source``.
    """
    source = open_source(path, kind=kind, maps=maps, max_bytes=MAX_MESSAGE_BYTES, on_bytes=on_bytes)
    survey = Survey()
    survey.read(source, kind=kind)
    questions = list(dict.fromkeys(question for _, question in survey.sample.kept))
    texts = [one["content"] for messages in survey.conversations for one in messages]
    return Check(
        path=str(path),
        form=source.form,
        notes=tuple(source.notes),
        survey=survey,
        tokens=measure(survey, base_model) if survey.examples else None,
        compared=len(questions),
        near=near_duplicates(questions),
        personal=count_personal(texts) if texts else Counter(),
        looked_at=len(texts),
    )


def count_personal(texts: Sequence[str]) -> Counter[str] | None:
    """Return in how many of ``texts`` each entity is found that is redacted by default. None: the package
    tunewheel-redaction is not installed."""
    try:
        from tunewheel_redaction.redaction import find_entities
    except ImportError:
        return None
    from tunewheel_contracts.formats.data_quality import PiiPolicy

    found = find_entities(texts, PiiPolicy().wanted)
    return Counter(entity for findings in found for entity in sorted({one.entity for one in findings}))
