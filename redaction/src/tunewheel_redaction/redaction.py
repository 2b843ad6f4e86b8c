"""Replaces personal data in inputs and outputs by placeholders that name the kind of data."""

from __future__ import annotations

import hmac
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import PiiPattern, PiiPolicy
from tunewheel_contracts.formats.recognised import entity_complaint
from tunewheel_contracts.identity import canonical_json, content_sha256

from tunewheel_redaction.answers import PHONE_KEY, Kind, Part, parts_of, with_parts
from tunewheel_redaction.finding import Finding
from tunewheel_redaction.folding import as_written, fold, fold_texts
from tunewheel_redaction.named_entities import find_named_entities
from tunewheel_redaction.recognizers import may_contain, recognizers_of
from tunewheel_redaction.secrets import find_secrets
from tunewheel_redaction.spellings import ENCODED, decoded_runs, find_split_cards

STAND_IN_DIGITS = 4
"""Hex digits of a pseudonym. They are few, so that thousands of telephone numbers fit the same pseudonym."""

PLAIN = " ; "
"""Replaces a placeholder when a redacted text is searched again."""


def check_entities(entities: Iterable[str]) -> None:
    """Check the names of entities.

    Raises:
        InvalidSpec: an entity is not in ``PII_ENTITIES``.
    """
    for entity in entities:
        if (complaint := entity_complaint(entity)) is not None:
            raise InvalidSpec(field="dataset.pii.entities", reason=complaint)


def find_entities(texts: Sequence[str], entities: Sequence[str]) -> list[list[Finding]]:
    """Return the findings in each of ``texts``, without overlaps, by position.

    Of overlapping findings the one with the higher score stays, then the longer one, then the one whose
    entity comes first in ``entities``.
    """
    found = find_all(pl.Series(texts, dtype=pl.String), entities)
    return [without_overlaps(found.get(place, ())) for place in range(len(texts))]


def find_all(texts: pl.Series, entities: Sequence[str]) -> dict[int, list[Finding]]:
    """Return the findings for ``entities``, in their order and with overlaps, by the text's position in
    ``texts``. The recognisers search folded texts; a finding's positions are those in the original text."""
    found: dict[int, list[Finding]] = {}
    read, folded = fold_texts(texts)
    for entity in entities:
        places = may_contain(entity, read).arg_true()
        for place, text in zip(places, read.gather(places).to_list(), strict=True):
            for find in recognizers_of(entity):
                found.setdefault(place, []).extend(find(text))
    for place, own in _encoded(read, entities).items():
        found.setdefault(place, []).extend(own)
    for place in found.keys() & set(folded):
        found[place] = as_written(found[place], texts[place])
    if "SECRET" in entities:  # folding reads the key after "token=40abc" as an address
        for place in folded:
            found.setdefault(place, []).extend(find_secrets(texts[place]))
    return found


def _encoded(texts: pl.Series, entities: Sequence[str]) -> dict[int, list[Finding]]:
    """Return the runs of Base64 in ``texts`` that hold one of ``entities``, as findings of the first."""
    places = texts.str.contains(ENCODED).fill_null(False).arg_true()
    runs = [(place, *run) for place in places for run in decoded_runs(texts[place])]
    inner = find_all(pl.Series([said for *_, said in runs], dtype=pl.String), entities) if runs else {}
    found: dict[int, list[Finding]] = {}
    for number, own in inner.items():
        place, start, end, _ = runs[number]
        if own:
            found.setdefault(place, []).append(Finding(without_overlaps(own)[0].entity, start, end, 1.0))
    return found


def without_overlaps(findings: Sequence[Finding]) -> list[Finding]:
    """Return the best of overlapping ``findings``: by score, then length, then place in the list."""
    chosen: list[Finding] = []  # by position
    for finding in sorted(findings, key=lambda f: (-f.score, f.start - f.end)):
        at = bisect_left(chosen, finding.start, key=lambda f: f.start)
        is_free = not at or chosen[at - 1].end <= finding.start
        if is_free and (at == len(chosen) or finding.end <= chosen[at].start):
            chosen.insert(at, finding)
    return chosen


class Redactor:
    """Removes personal data from texts by a policy, and counts it.

    ``own_words`` are the project's own words: keys and strings of answers that equal one of them stay. With a
    ``secret`` a pseudonym is an HMAC (RFC 2104), so that nobody without the secret can confirm a guess.

    Raises:
        InvalidSpec: the policy names an unknown entity.
    """

    def __init__(
        self, policy: PiiPolicy, *, project: str = "", secret: str = "", own_words: Collection[str] = ()
    ) -> None:
        check_entities(policy.entities)
        self._policy, self._project, self._secret = policy, project, secret
        self._own_words = frozenset(own_words)
        self.tallies = defaultdict[int, Counter[str]](Counter)
        """By owner, how many pieces of personal data were replaced, by entity."""

    def clean(self, texts: pl.Series, groups: pl.Series, owners: Sequence[int] | None = None) -> pl.Series:
        """Return ``texts`` with placeholders. Equal values in texts of one group get equal pseudonyms.
        ``owners`` says for ``tallies`` whose each text is; None: the text at place n is of owner n."""
        distinct = texts.drop_nulls().unique(maintain_order=True)
        findings = self._findings(distinct)
        touched = pl.Series([distinct[place] for place in findings], dtype=pl.String)
        by_text = dict(zip(touched, findings.values(), strict=True))
        cleaned = texts.to_list()
        for place in texts.is_in(touched.implode()).fill_null(False).arg_true():
            text = cleaned[place]
            cleaned[place] = self._replaced(text, by_text[text], groups[place])
            owner = place if owners is None else owners[place]
            self.tallies[owner].update(finding.entity for finding in by_text[text])
        return pl.Series(texts.name, cleaned, dtype=pl.String)

    def holds_any(self, texts: pl.Series) -> pl.Series:
        """Return which of ``texts`` hold personal data. A placeholder of this policy never counts, even if a
        project's pattern or a pipeline for names matches its words."""
        names = "|".join(map(re.escape, self._policy.placeholders))
        bare = texts.str.replace_all(rf"<(?:{names})(?:_[0-9a-f]{{{STAND_IN_DIGITS}}})?>", PLAIN)
        distinct = bare.drop_nulls().unique(maintain_order=True)
        return bare.is_in(distinct.gather(sorted(self._findings(distinct))).implode())

    def _findings(self, texts: pl.Series) -> dict[int, list[Finding]]:
        found = self._by_patterns(texts)
        for place, own in find_all(texts, self._policy.wanted).items():
            found.setdefault(place, []).extend(own)
        if (named := self._policy.named_entities) is not None:
            for place, own in find_named_entities(texts, named).items():
                found.setdefault(place, []).extend(own)
        return {place: without_overlaps(findings) for place, findings in found.items() if findings}

    def _by_patterns(self, texts: pl.Series) -> dict[int, list[Finding]]:
        """Search original and folded texts, since folding may replace a character that a pattern needs."""
        patterns = self._policy.patterns
        found = find_by_patterns(texts, patterns)
        read, folded = fold_texts(texts) if patterns else (texts, [])
        for place, own in find_by_patterns(read.gather(folded), patterns).items():
            written = folded[place]
            found.setdefault(written, []).extend(as_written(own, texts[written]))
        return found

    def clean_answers(self, answers: pl.Series, groups: pl.Series) -> pl.Series:
        """Return ``answers`` cleaned: the strings, keys and whole numbers of JSON, or the text."""
        places = self._worth_reading(answers).arg_true().to_list()
        parts = {place: self._parts(answers[place]) for place in places}
        owners = [place for place, own in parts.items() for _ in own]
        shown = [part.announced + part.text for own in parts.values() for part in own]
        texts = pl.Series(shown, dtype=pl.String)
        clean = iter(self.clean(texts, groups.gather(owners), owners).to_list())
        cleaned = answers.to_list()
        for place, own in parts.items():
            said = [next(clean).removeprefix(part.announced) for part in own]
            cleaned[place] = with_parts(cleaned[place], own, said)
        return pl.Series(answers.name, cleaned, dtype=pl.String)

    def _parts(self, answer: str) -> list[Part]:
        own = self._own_words
        return [part for part in parts_of(answer) if part.kind is Kind.TEXT or part.text not in own]

    def _worth_reading(self, answers: pl.Series) -> pl.Series:
        """Return which answers may hold personal data, by a cheap search of their whole text.

        JSON holds strings unchanged unless they have escapes, so an answer with a backslash always counts.
        With the project's own patterns or with names every answer counts: a pattern may match at the ends of
        a string, and names may be anywhere.
        """
        if self._policy.patterns or self._policy.named_entities is not None:
            return answers.is_not_null()
        worth = answers.str.contains("\\", literal=True)
        read, _ = fold_texts(answers)
        for entity in self._policy.wanted:
            worth |= may_contain(entity, read)
        if "PHONE_NUMBER" in self._policy.entities:
            worth |= answers.str.contains(PHONE_KEY)
        return worth.fill_null(False)

    def clean_split(self, turns: Sequence[str], group: str, owner: int) -> list[str]:
        """Return a person's ``turns`` without card numbers that are spread over several of them."""
        if "CREDIT_CARD" not in self._policy.entities:
            return list(turns)
        found = find_split_cards(turns)
        self.tallies[owner].update("CREDIT_CARD" for _ in found)
        return [
            self._replaced(turn, without_overlaps(found.get(place, ())), group)
            for place, turn in enumerate(turns)
        ]

    def _replaced(self, text: str, findings: Sequence[Finding], group: str) -> str:
        parts: list[str] = []
        end = 0
        for finding in findings:
            value = text[finding.start : finding.end]
            parts += [text[end : finding.start], self._placeholder(finding.entity, value, group)]
            end = finding.end
        return "".join([*parts, text[end:]])

    def _placeholder(self, entity: str, value: str, group: str) -> str:
        if self._policy.action != "pseudonymise":
            return f"<{entity}>"
        plain = "".join(char for char in fold(value).casefold() if char.isalnum()) or value
        told = [self._project, group, entity, plain]
        if self._secret:
            hashed = hmac.new(self._secret.encode(), canonical_json(told), "sha256").hexdigest()
        else:
            hashed = content_sha256(told)
        return f"<{entity}_{hashed[:STAND_IN_DIGITS]}>"


_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Noncharacters that mark findings; Unicode reserves them for use inside a process (Unicode 16, §23.7)."""


def find_by_patterns(texts: pl.Series, patterns: Sequence[PiiPattern]) -> dict[int, list[Finding]]:
    """Return the findings of ``patterns``, by the text's position in ``texts``, in order within a text."""
    found: dict[int, list[Finding]] = {}
    if patterns:
        texts = texts.str.replace_all(f"[{_OPEN}{_CLOSE}]", " ")
    for pattern in patterns:
        matching = texts.str.contains(pattern.regex).arg_true()
        marked = texts.gather(matching).str.replace_all(f"(?:{pattern.regex})", f"{_OPEN}${{0}}{_CLOSE}")
        for place, text in zip(matching, marked, strict=True):
            found.setdefault(place, []).extend(_findings(text, pattern.name))
    return {place: sorted(findings, key=lambda f: f.start) for place, findings in found.items()}


def _findings(marked: str, name: str) -> list[Finding]:
    before, *parts = marked.split(_OPEN)
    findings: list[Finding] = []
    position = len(before)
    for part in parts:
        matched, _, after = part.partition(_CLOSE)
        if matched:
            findings.append(Finding(name, position, position + len(matched), 1.0))
        position += len(matched) + len(after)
    return findings
