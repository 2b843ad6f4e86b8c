"""Plants personal data of kinds that have a form, in 12 spellings and every field, and looks for it.

The search is independent of the recognisers: each field is decoded by Python's own libraries, and the planted
value itself is looked for in the letters and digits that are left.
"""

from __future__ import annotations

import base64
import html
import json
import random
import re
import string
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import polars as pl
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_curate.cleaning.redaction import redact_records

ALNUM = string.ascii_letters + string.digits
FIELDS = ("title", "input", "user turn", "assistant turn", "answer", "answer in JSON", "rejected answer")


def planted(rng: random.Random) -> dict[str, str]:
    """Return one value of each kind."""

    def some(count: int, of: str = ALNUM) -> str:
        return "".join(rng.choices(of, k=count))

    digits = string.digits
    part = f"4{some(14, digits)}"
    card = next(part + d for d in digits if _luhn(part + d))
    bank = f"37040044{some(10, digits)}"
    check = 98 - int(f"{bank}131400") % 97
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()).decode().rstrip("=")
    body = base64.urlsafe_b64encode(json.dumps({"sub": some(12)}).encode()).decode().rstrip("=")
    return {
        "email": f"{some(7).lower()}.{some(5).lower()}@{some(6).lower()}.com",
        "phone": f"+4420794{rng.randrange(60000, 69999)}",
        "card": "-".join(card[n : n + 4] for n in range(0, 16, 4)),
        "iban": f"DE{check:02}{bank}",
        "ssn": f"5{some(2, '123')}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}",
        "address": f"203.0.113.{rng.randrange(1, 255)}",
        "github token": f"ghp_{some(36)}",
        "amazon key": f"AKIA{some(16, string.ascii_uppercase + '234567')}",
        "json web token": f"{head}.{body}.{some(43)}",
        "password": f"password: {some(8)}4!{some(3)}",
    }


def _luhn(number: str) -> bool:
    doubled = [sum(divmod(2 * int(d), 10)) for d in number[-2::-2]]
    return (sum(map(int, number[-1::-2])) + sum(doubled)) % 10 == 0


def _signs(write: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: "".join(sign if sign.isalnum() or sign == " " else write(sign) for sign in text)


def _wide(text: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text)


def _broken(text: str) -> str:
    return re.sub(r"([@-])", "\\1\n", text, count=1) if re.search("@|\\d-", text) else text


SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "entities": _signs(lambda sign: f"&#{ord(sign)};"),
    "entities twice": _signs(lambda sign: f"&amp;#{ord(sign)};"),
    "percent": lambda text: quote(text, safe=" ").replace(".", "%2E"),
    "percent twice": lambda text: quote(quote(text, safe=" "), safe=" "),
    "escapes": _signs(lambda sign: f"\\u{ord(sign):04x}"),
    "wide": _wide,
    "zero width": lambda text: text[:6] + "\u200b" + text[6:],
    "soft hyphen": lambda text: text[:-3] + "\u00ad" + text[-3:],
    "dashes": lambda text: text.replace("-", "\u2011").replace(" ", "\u00a0"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "joined lines": _broken,
}


def row(number: int, field: str, text: str) -> dict[str, Any]:
    """Return a record with ``text`` in ``field``."""
    said = dict.fromkeys(("title", "input", "output", "rejected_output"), f"Nothing of interest in {number}")
    turns = [{"content": "hello", "role": "user"}, {"content": "yes?", "role": "assistant"}]
    names = {"answer": "output", "rejected answer": "rejected_output"}
    if field == "answer in JSON":
        said["output"] = json.dumps({"reply": text})
    elif field.endswith("turn"):
        turns[field.startswith("assistant")]["content"] = text
    else:
        said[names.get(field, field)] = text
    name = {"record_id": f"r{number}", "project": "bench", "group": f"g{number}"}
    return {**name, "history": json.dumps(turns), **said}


def found_again(released: str, value: str) -> bool:
    """Return whether ``value`` can be read from ``released``."""
    core = _core(value.removeprefix("password: "))
    seen = [released, html.unescape(html.unescape(released)), unquote(unquote(released))]
    seen.append(re.sub(r"\\u([0-9a-f]{4})", lambda escape: chr(int(escape[1], 16)), released))
    for run in re.findall(r"[A-Za-z0-9+/]{12,}={0,2}", released):
        try:
            seen.append(base64.b64decode(run + "=" * (-len(run) % 4)).decode("utf-8", "ignore"))
        except ValueError:
            continue
    return any(core in _core(text) for text in seen)


def _core(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKC", text).casefold() if sign.isalnum())


def measured(items: int) -> dict[str, Any]:
    """Plant ``items`` values, redact, and return how many were found again, by kind and spelling."""
    rng = random.Random(62)
    rows: list[dict[str, Any]] = []
    values: list[tuple[str, str, str, str]] = []
    while len(rows) < items:
        for kind, value in planted(rng).items():
            spelling = list(SPELLINGS)[len(rows) // 10 % 12]
            field = FIELDS[len(rows) // 120 % 7]
            said = "SSN " * (kind == "ssn") + SPELLINGS[spelling](value)
            rows.append(row(len(rows), field, f"Since Monday it fails with {said} and I need help."))
            values.append((kind, spelling, field, value))
    started = time.process_time()
    clean = redact_records(pl.DataFrame(rows), PiiPolicy()).kept
    seconds = time.process_time() - started
    left = Counter[str]()
    for released, (kind, spelling, field, value) in zip(clean.rows(), values, strict=True):
        if found_again("\n".join(map(str, released)), value):
            left[f"{kind}, {spelling}, {field}"] += 1
    return {
        "planted": len(rows),
        "found_again": sum(left.values()),
        "where": dict(left.most_common()),
        "records_per_cpu_second": round(len(rows) / seconds),
    }


if __name__ == "__main__":
    print(json.dumps(measured(int(sys.argv[1]) if len(sys.argv) > 1 else 10_080)))
