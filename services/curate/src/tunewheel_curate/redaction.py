"""Personal data out of inputs and outputs, by patterns, under placeholders that say what was there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.spec import PiiPolicy

from tunewheel_curate.recognizers import ENTITIES, Finding, may_contain, recognizers_of
from tunewheel_curate.stage import Stage, drop

COLUMNS = ("title", "input", "output")


def check_entities(entities: Iterable[str]) -> None:
    """Refuse what no pattern can find.

    Raises:
        InvalidSpec: an entity that is not in ``ENTITIES``.
    """
    for entity in entities:
        if entity not in ENTITIES:
            known = ", ".join(sorted(ENTITIES))
            reason = f"{entity!r} has no pattern recogniser; choose from {known}"
            raise InvalidSpec(field="dataset.pii.entities", reason=reason)


def find_entities(text: str, entities: Sequence[str]) -> list[Finding]:
    """Return the findings in ``text``, without overlaps, by position.

    Of overlapping findings the higher score stays, then the longer, then the one named first in
    ``entities``.
    """
    rank = {entity: number for number, entity in enumerate(entities)}
    likely = [entity for entity in entities if may_contain(entity, text)]
    found = [f for entity in likely for find in recognizers_of(entity) for f in find(text)]
    found.sort(key=lambda f: (-f.score, f.start - f.end, rank[f.entity], f.start))
    chosen: list[Finding] = []
    for finding in found:
        if all(finding.end <= other.start or other.end <= finding.start for other in chosen):
            chosen.append(finding)
    return sorted(chosen, key=lambda f: f.start)


def redact_text(text: str, entities: Sequence[str], tally: Counter[str] | None = None) -> str:
    """Replace each finding by ``<ENTITY>``; ``tally`` counts them."""
    parts: list[str] = []
    end = 0
    for finding in find_entities(text, entities):
        parts += [text[end : finding.start], f"<{finding.entity}>"]
        end = finding.end
        if tally is not None:
            tally[finding.entity] += 1
    return "".join([*parts, text[end:]])


def redact_output(text: str, redact: Callable[[str], str]) -> str:
    """Redact a text, or the strings inside it where it is a JSON object or array."""
    try:
        value = json.loads(text)
    except ValueError:
        return redact(text)
    if not isinstance(value, dict | list):
        return redact(text)
    cleaned = _walk(value, redact)
    return text if cleaned == value else json.dumps(cleaned, ensure_ascii=False)


def redact_records(records: pl.DataFrame, policy: PiiPolicy) -> Stage:
    """Apply ``policy`` to ``title``, ``input`` and ``output``.

    ``redact`` puts placeholders, ``reject`` drops with reason ``pii``, ``keep`` changes nothing.
    ``counts`` of the stage holds what was found, by entity.

    Raises:
        InvalidSpec: the policy names an unknown entity.
    """
    check_entities(policy.entities)
    if policy.action == "keep":
        return drop("redaction", records, pl.lit(None, dtype=pl.String))
    tally: Counter[str] = Counter()

    def redact(text: str) -> str:
        return redact_text(text, policy.entities, tally)

    redacted: dict[str, list[str | None]] = {
        "title": [redact(text) for text in records["title"]],
        "input": [redact(text) for text in records["input"]],
        "output": [None if text is None else redact_output(text, redact) for text in records["output"]],
    }
    clean = records.with_columns(pl.Series(name, redacted[name], dtype=pl.String) for name in COLUMNS)
    touched = pl.Series(
        [any(clean[c][i] != records[c][i] for c in COLUMNS) for i in range(records.height)], dtype=pl.Boolean
    )
    rejects = pl.lit(touched) & pl.lit(policy.action == "reject")
    stage = drop("redaction", clean, pl.when(rejects).then(pl.lit("pii")))
    return Stage(stage.name, stage.kept, stage.dropped, dict(sorted(tally.items())))


def _walk(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_walk(item, redact) for item in value]
    if isinstance(value, dict):
        return {key: _walk(item, redact) for key, item in value.items()}
    return value
