"""Personal data out of inputs and outputs, by patterns, under placeholders that say what was there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.identity import content_sha256

from tunewheel_curate.privacy.project_patterns import check_patterns, find_by_patterns
from tunewheel_curate.privacy.recognizers import ENTITIES, SIGNS, Finding, may_contain, recognizers_of
from tunewheel_curate.stage import Stage, drop

TEXTS = ("title", "input")
ANSWERS = ("output", "rejected_output")
COLUMNS = (*TEXTS, *ANSWERS)
MAX_BRACKETS = 500
"""An answer with more is redacted as plain text: it could be nested deeper than Python's stack is high."""
STAND_IN_DIGITS = 4
"""Hex digits of a stand-in. Few, so that trying all telephone numbers finds thousands that fit, not one."""


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
    return without_overlaps(find_all(text, entities))


def find_all(text: str, entities: Sequence[str]) -> list[Finding]:
    """Return what the recognisers of ``entities`` find, in their order, overlaps and all."""
    likely = [entity for entity in entities if may_contain(entity, text)]
    return [f for entity in likely for find in recognizers_of(entity) for f in find(text)]


def without_overlaps(findings: Sequence[Finding]) -> list[Finding]:
    """Return the best of ``findings`` where they overlap: by score, length, then place in the list."""
    chosen: list[Finding] = []
    for finding in sorted(findings, key=lambda f: (-f.score, f.start - f.end)):
        if all(finding.end <= other.start or other.end <= finding.start for other in chosen):
            chosen.append(finding)
    return sorted(chosen, key=lambda f: f.start)


class Redactor:
    """Takes personal data out of texts as a policy says, and counts it.

    Raises:
        InvalidSpec: the policy names an unknown entity, or a pattern like a built-in one.
    """

    def __init__(self, policy: PiiPolicy, *, project: str = "") -> None:
        check_entities(policy.entities)
        check_patterns(policy.patterns)
        self._policy, self._project = policy, project
        signs = [SIGNS.get(entity, "") for entity in policy.entities]
        signs += [f"(?:{pattern.regex})" for pattern in policy.patterns]
        self._sign = "|".join(signs) if all(signs) else ""
        self.tally: Counter[str] = Counter()

    def clean(self, texts: Sequence[str], groups: Sequence[str]) -> list[str]:
        """Return ``texts`` with placeholders; equal values in texts of one group get equal stand-ins."""
        cleaned = list(texts)
        signs = pl.Series(cleaned, dtype=pl.String).str.contains(self._sign)
        likely: list[int] = signs.arg_true().to_list()
        by_pattern = find_by_patterns([cleaned[place] for place in likely], self._policy.patterns)
        for place, found in zip(likely, by_pattern, strict=True):
            own = find_all(cleaned[place], self._policy.entities)
            findings = without_overlaps([*found, *own])
            cleaned[place] = self._replaced(cleaned[place], findings, groups[place])
        return cleaned

    def clean_outputs(self, outputs: Sequence[str | None], groups: Sequence[str]) -> list[str | None]:
        """Return ``outputs`` cleaned: a text, or the strings inside a JSON object or array."""
        values = [_parsed(output) for output in outputs]
        places: list[int] = []
        strings: list[str] = []
        for place, value in enumerate(values):
            for string in _strings(value):
                places.append(place)
                strings.append(string)
        clean = self.clean(strings, [groups[place] for place in places])
        changed = {place for place, old, new in zip(places, strings, clean, strict=True) if old != new}
        waiting = iter(clean)
        return [
            _with_strings(outputs[place], value, waiting, changed=place in changed)
            for place, value in enumerate(values)
        ]

    def _replaced(self, text: str, findings: Sequence[Finding], group: str) -> str:
        parts: list[str] = []
        end = 0
        for finding in findings:
            value = text[finding.start : finding.end]
            parts += [text[end : finding.start], self._placeholder(finding.entity, value, group)]
            end = finding.end
            self.tally[finding.entity] += 1
        return "".join([*parts, text[end:]])

    def _placeholder(self, entity: str, value: str, group: str) -> str:
        if self._policy.action != "pseudonymise":
            return f"<{entity}>"
        plain = "".join(char for char in value.casefold() if char.isalnum()) or value
        return f"<{entity}_{content_sha256([self._project, group, entity, plain])[:STAND_IN_DIGITS]}>"


def redact_text(text: str, entities: Sequence[str]) -> str:
    """Replace each finding by ``<ENTITY>``."""
    return Redactor(PiiPolicy(entities=tuple(entities))).clean([text], [""])[0]


def redact_records(records: pl.DataFrame, policy: PiiPolicy) -> Stage:
    """Apply ``policy`` to ``COLUMNS``.

    ``redact`` puts placeholders, ``pseudonymise`` stand-ins that agree within a group, ``reject`` drops with
    reason ``pii``, ``keep`` changes nothing. ``counts`` of the stage holds what was found, by entity.

    Raises:
        InvalidSpec: see ``Redactor``.
    """
    redactor = Redactor(policy, project=records["project"][0] if records.height else "")
    if policy.action == "keep":
        return drop("redaction", records, pl.lit(None, dtype=pl.String))
    groups = records["group"].to_list()
    clean = records.with_columns(
        pl.Series(name, redactor.clean(records[name].to_list(), groups), dtype=pl.String) for name in TEXTS
    ).with_columns(
        pl.Series(name, redactor.clean_outputs(records[name].to_list(), groups), dtype=pl.String)
        for name in ANSWERS
    )
    touched = pl.Series([False]).new_from_index(0, records.height)
    for name in COLUMNS:
        touched |= clean[name].ne_missing(records[name])
    rejects = pl.lit(touched) & pl.lit(policy.action == "reject")
    stage = drop("redaction", clean, pl.when(rejects).then(pl.lit("pii")))
    return Stage(stage.name, stage.kept, stage.dropped, dict(sorted(redactor.tally.items())))


def _parsed(output: str | None) -> Any:
    """Return a JSON object or array; anything else as the text it is."""
    if output is None or not 0 < output.count("{") + output.count("[") <= MAX_BRACKETS:
        return output
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return output
    return value if isinstance(value, dict | list) else output


def _strings(value: Any) -> Iterator[str]:
    """Yield the strings of ``value``, keys apart, in the order of ``_rebuilt``."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)


def _with_strings(output: str | None, value: Any, strings: Iterator[str], *, changed: bool) -> str | None:
    rebuilt = _rebuilt(value, strings)
    if not changed:
        return output
    return rebuilt if isinstance(rebuilt, str) else json.dumps(rebuilt, ensure_ascii=False)


def _rebuilt(value: Any, strings: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(strings)
    if isinstance(value, list):
        return [_rebuilt(item, strings) for item in value]
    if isinstance(value, dict):
        return {key: _rebuilt(item, strings) for key, item in value.items()}
    return value
