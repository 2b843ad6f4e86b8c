"""Personal data out of inputs and outputs, under placeholders that say what was there."""

from __future__ import annotations

import hmac
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.recognised import entity_complaint
from tunewheel_contracts.identity import canonical_json, content_sha256

from tunewheel_redaction.named_entities import find_named_entities
from tunewheel_redaction.project_patterns import check_patterns, find_by_patterns
from tunewheel_redaction.recognizers import Finding, may_contain, recognizers_of

MAX_BRACKETS = 500
"""An answer with more is redacted as plain text: it could be nested deeper than Python's stack is high."""
STAND_IN_DIGITS = 4
"""Hex digits of a stand-in. Few, so that trying all telephone numbers finds thousands that fit, not one."""


def check_entities(entities: Iterable[str]) -> None:
    """Refuse what no pattern can find.

    Raises:
        InvalidSpec: an entity that is not in ``PII_ENTITIES``.
    """
    for entity in entities:
        if (complaint := entity_complaint(entity)) is not None:
            raise InvalidSpec(field="dataset.pii.entities", reason=complaint)


def find_entities(texts: Sequence[str], entities: Sequence[str]) -> list[list[Finding]]:
    """Return the findings in each of ``texts``, without overlaps, by position.

    Of overlapping findings the higher score stays, then the longer, then the one named first in
    ``entities``.
    """
    found = find_all(pl.Series(texts, dtype=pl.String), entities)
    return [without_overlaps(found.get(place, ())) for place in range(len(texts))]


def find_all(texts: pl.Series, entities: Sequence[str]) -> dict[int, list[Finding]]:
    """Return what the recognisers of ``entities`` find, in their order, overlaps and all, by the text's
    position in ``texts``."""
    found: dict[int, list[Finding]] = {}
    for entity in entities:
        places = may_contain(entity, texts).arg_true()
        for place, text in zip(places, texts.gather(places).to_list(), strict=True):
            for find in recognizers_of(entity):
                found.setdefault(place, []).extend(find(text))
    return found


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

    def __init__(self, policy: PiiPolicy, *, project: str = "", secret: str = "") -> None:
        check_entities(policy.entities)
        check_patterns(policy.patterns)
        self._policy, self._project, self._secret = policy, project, secret
        self.tally: Counter[str] = Counter()

    def clean(self, texts: pl.Series, groups: pl.Series) -> pl.Series:
        """Return ``texts`` with placeholders; equal values in texts of one group get equal stand-ins."""
        distinct = texts.drop_nulls().unique(maintain_order=True)
        findings = self._findings(distinct)
        touched = pl.Series([distinct[place] for place in findings], dtype=pl.String)
        by_text = dict(zip(touched, findings.values(), strict=True))
        cleaned = texts.to_list()
        for place in texts.is_in(touched.implode()).fill_null(False).arg_true():
            text = cleaned[place]
            cleaned[place] = self._replaced(text, by_text[text], groups[place])
        return pl.Series(texts.name, cleaned, dtype=pl.String)

    def _findings(self, texts: pl.Series) -> dict[int, list[Finding]]:
        found = find_by_patterns(texts, self._policy.patterns)
        for place, own in find_all(texts, self._policy.entities).items():
            found.setdefault(place, []).extend(own)
        if (named := self._policy.named_entities) is not None:
            for place, own in find_named_entities(texts, named).items():
                found.setdefault(place, []).extend(own)
        return {place: without_overlaps(findings) for place, findings in found.items() if findings}

    def clean_outputs(self, outputs: pl.Series, groups: pl.Series) -> pl.Series:
        """Return ``outputs`` cleaned: a text, or the strings inside a JSON object or array."""
        places = self._worth_reading(outputs).arg_true()
        values = [_parsed(outputs[place]) for place in places]
        strings = [list(_strings(value)) for value in values]
        owners = [place for place, own in zip(places, strings, strict=True) for _ in own]
        flat = pl.Series([string for own in strings for string in own], dtype=pl.String)
        clean = iter(self.clean(flat, groups.gather(owners)).to_list())
        cleaned = outputs.to_list()
        for place, value, own in zip(places, values, strings, strict=True):
            new = list(itertools.islice(clean, len(own)))
            if new != own:
                cleaned[place] = _spelt(_rebuilt(value, iter(new)))
        return pl.Series(outputs.name, cleaned, dtype=pl.String)

    def _worth_reading(self, outputs: pl.Series) -> pl.Series:
        """Tell which outputs may hold something. A string in JSON stands there as it is, unless something is
        escaped; but a project's pattern may look for its ends, and names may stand anywhere."""
        if self._policy.patterns or self._policy.named_entities is not None:
            return outputs.is_not_null()
        worth = outputs.str.contains("\\", literal=True)
        for entity in self._policy.entities:
            worth |= may_contain(entity, outputs)
        return worth.fill_null(False)

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
        told = [self._project, group, entity, plain]
        if self._secret:
            hashed = hmac.new(self._secret.encode(), canonical_json(told), "sha256").hexdigest()
        else:
            hashed = content_sha256(told)
        return f"<{entity}_{hashed[:STAND_IN_DIGITS]}>"


def redact_text(text: str, entities: Sequence[str]) -> str:
    """Replace each finding by ``<ENTITY>``."""
    return Redactor(PiiPolicy(entities=tuple(entities))).clean(pl.Series([text]), pl.Series([""]))[0]


def _parsed(output: str | None) -> Any:
    """Return a JSON object or array; anything else as the text it is."""
    if output is None or not 0 < output.count("{") + output.count("[") <= MAX_BRACKETS:
        return output
    try:
        value = json.loads(output)
        if "\\ud" in output.lower():
            json.dumps(value, ensure_ascii=False).encode()  # a ValueError on half of a surrogate pair
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


def _spelt(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rebuilt(value: Any, strings: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(strings)
    if isinstance(value, list):
        return [_rebuilt(item, strings) for item in value]
    if isinstance(value, dict):
        return {key: _rebuilt(item, strings) for key, item in value.items()}
    return value
