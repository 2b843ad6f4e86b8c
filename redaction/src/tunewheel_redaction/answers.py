"""Splits answers into the parts to search for personal data: strings, keys and numbers of JSON, or text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum

from tunewheel_redaction.secrets import announces_secret

MAX_BRACKETS = 500
"""JSON with more brackets counts as text: it could be nested too deeply for Python's stack."""
LONGEST_NUMBER = 40
"""The most digits of a number that could be personal data."""
_PHONE_WORDS = {"call", "cell", "fax", "handy", "mobile", "msisdn", "tel", "telefon", "whatsapp"}
PHONE_KEY = rf'(?i)(?:{"|".join(sorted(_PHONE_WORDS))}|phone)[^"]*"\s*:'
"""A pattern, for Python and for Rust alike, for a key that announces a telephone number."""
_NAME_WORDS = frozenset(
    [
        "name",
        "contact",
        "customer",
        "assignee",
        "requester",
        "reporter",
        "author",
        "owner",
        "employee",
        "surname",
    ]
)
_JOINT = re.compile(r"(?<=[a-z])(?=[A-Z])|[\W_]")
"""Separates the words of a key: ``homePhone``, ``tel_2``."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"(?P<key>\s*:)?|-?[0-9][0-9.eE+-]*', re.DOTALL)
_KEY_OR_BRACE = re.compile(r'"(?:[^"\\]|\\.)*"(?P<key>\s*:)?|[{}]', re.DOTALL)


class Kind(Enum):
    """The kind of a part of an answer."""

    TEXT = "text"
    STRING = "string"
    KEY = "key"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an answer between two positions. ``text`` is its decoded content."""

    kind: Kind
    start: int
    end: int
    text: str
    announced: str = ""
    """The kind of value that the JSON key names, a telephone number, a password or a name, in words that the
    recognisers know from texts; empty for other keys."""


def parts_of(answer: str) -> list[Part]:
    """Return the strings, keys and whole numbers of a JSON answer in order; any other answer is one part.

    A repeated key in an object is two parts, because a reader sees both. Fractions are no personal data.
    """
    if not _is_json(answer):
        return [Part(Kind.TEXT, 0, len(answer), answer)]
    return list(_parts(answer))


def _parts(answer: str) -> Iterator[Part]:
    announced = ""
    for match in _TOKEN.finditer(answer):
        token = match.group()
        if token[0] != '"':
            digits = _whole(token)
            if digits is not None:
                yield Part(Kind.NUMBER, match.start(), match.end(), digits, announced)
        elif match["key"] is None:
            yield Part(Kind.STRING, match.start(), match.end(), _said(token), announced)
        else:
            end = match.start("key")
            key = _said(answer[match.start() : end])
            announced = _announced(key)
            yield Part(Kind.KEY, match.start(), end, key)


def with_parts(answer: str, parts: Sequence[Part], said: Sequence[str]) -> str:
    """Return ``answer`` with each of ``parts`` replaced by the text at the same position in ``said``.

    JSON stays JSON: a number whose new text is no number of its kind becomes 0, and keys of one object that
    became equal are numbered.
    """
    pieces: list[str] = []
    last = 0
    renamed = False
    for part, new in zip(parts, said, strict=True):
        if new == part.text:
            continue
        renamed |= part.kind is Kind.KEY
        pieces += [answer[last : part.start], _spelt(part, new, answer[part.start : part.end])]
        last = part.end
    changed = "".join([*pieces, answer[last:]])
    return _with_keys_told_apart(changed) if renamed else changed


def _is_json(answer: str) -> bool:
    """Return whether ``answer`` is a JSON object, array or string. A lone number may be plain text."""
    if answer.lstrip()[:1] not in {"{", "[", '"'} or answer.count("{") + answer.count("[") > MAX_BRACKETS:
        return False
    try:
        json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return True


def _said(token: str) -> str:
    if "\\" not in token:
        return token[1:-1]
    text: str = json.loads(token)
    # A lone surrogate cannot be encoded as UTF-8.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _announced(key: str) -> str:
    words = _JOINT.sub(" ", key).lower()
    if any(word in _PHONE_WORDS or "phone" in word for word in words.split()):
        return "phone: "
    if announces_secret(words):
        return "password: "
    return "name: " if not _NAME_WORDS.isdisjoint(words.split()) else ""


def _whole(token: str) -> str | None:
    if token.isdigit():
        return token
    if len(token) > LONGEST_NUMBER:
        return None
    try:
        number = Decimal(token).copy_abs()  # abs() would raise Overflow for an exponent of a million
    except InvalidOperation:  # the exponent is too large for a Decimal
        return None
    if number.adjusted() > LONGEST_NUMBER or number != number.to_integral_value():
        return None
    return str(int(number))


def _spelt(part: Part, said: str, token: str) -> str:
    if part.kind is Kind.TEXT:
        return said
    if part.kind is Kind.NUMBER:
        return "0" if token.lstrip("-").isdigit() else "0.0"
    return json.dumps(said, ensure_ascii=False)


def _with_keys_told_apart(answer: str) -> str:
    """Return JSON in which no object repeats a key. The rest of the text stays as it is: written again by
    Python, a number too large for a float would become Infinity, and a lone surrogate could not be
    encoded."""
    pieces: list[str] = []
    last = 0
    objects: list[set[str]] = []
    for match in _KEY_OR_BRACE.finditer(answer):
        if match.group() == "{":
            objects.append(set())
        elif match.group() == "}":
            objects.pop()
        elif match["key"] is not None:
            end = match.start("key")
            name = key = _said(answer[match.start() : end])
            number = 1
            while name in objects[-1]:
                number += 1
                name = f"{key} {number}"
            objects[-1].add(name)
            if name != key:
                pieces += [answer[last : match.start()], json.dumps(name, ensure_ascii=False)]
                last = end
    return "".join([*pieces, answer[last:]])
