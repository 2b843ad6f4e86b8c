"""Normalises text: repairs mojibake, removes control characters, makes white space regular; also in the
earlier turns of a thread."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import ftfy
import polars as pl
from ftfy.badness import BADNESS_RE
from ftfy.chardata import CONTROL_CHARS, HTML_ENTITY_RE, LIGATURES, WIDTH_MAP
from tunewheel_contracts.identity import canonical_json

from tunewheel_curate.stage import Stage, drop

# Curly quotes stay, because production inputs have them too.
_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, explain=False)
_ODD_SPACE = re.compile(r"[^\S\n ]")
_BLANK_LINES = re.compile(r"\n{3,}")
_QUOTES = {"‘": "'", "’": "'", "“": '"', "”": '"'}  # noqa: RUF001


DOUBTFUL = r"[^\n -~]|&|  |\n | \n|\n\n\n"
"""A text that does not match this pattern needs no normalisation: it has only printable ASCII, no entities
and no superfluous blanks. The pattern is valid in Python and in Rust."""
_DOUBTFUL = re.compile(DOUBTFUL)
_SINGLE = "".join(map(chr, [*CONTROL_CHARS, *LIGATURES, *WIDTH_MAP]))
_REPLACED = re.compile(
    f"[{re.escape(_SINGLE)}\r\x1b\x80-\x9f\u2028\u2029\ud800-\udfff]|{HTML_ENTITY_RE.pattern}"
)
"""Characters that ftfy replaces everywhere."""
_FOREIGN = re.compile(r"[^\x00-\x7f]+")
LONGEST_SIGN = 8
"""The length of the longest mojibake sequence that ftfy knows, plus the characters around it."""


def normalize_text(text: str) -> str:
    """Return ``text`` repaired (ftfy), in NFC, without control characters, trailing or repeated blanks."""
    if _DOUBTFUL.search(text) is None:
        return text.strip()
    return _regular(_repaired(text))


@lru_cache(1 << 14)
def normalize_remark(text: str) -> str:
    """Return ``normalize_text(text)`` from a cache. For answers: the same answer is sent often."""
    return normalize_text(text)


def normalize_texts(texts: pl.Series) -> pl.Series:
    """Return ``normalize_text`` of each of ``texts``, none of which is null."""
    normal = texts.str.strip_chars().to_list()
    places = texts.str.contains(DOUBTFUL).arg_true()
    for place, text in zip(places, texts.gather(places).to_list(), strict=True):
        normal[place] = _regular(_repaired(text))
    return pl.Series(texts.name, normal, dtype=pl.String)


def _regular(text: str) -> str:
    """Return ``text`` with single blanks, none at the ends of lines, and no two empty lines in a row."""
    if not text.isprintable():
        text = _ODD_SPACE.sub(" ", text)
    while "  " in text:
        text = text.replace("  ", " ")
    if "\n" in text:
        text = _BLANK_LINES.sub("\n\n", "\n".join([line.strip() for line in text.split("\n")]))
    return text.strip()


def _repaired(text: str) -> str:
    """Return ``text`` repaired by ftfy. ftfy runs eleven steps twice, and most texts pass unchanged. Quick
    tests find these texts first."""
    plain = text.isascii()
    if plain and "&" not in text and text.isprintable():
        return text
    if _REPLACED.search(text) is None and (
        plain or (unicodedata.is_normalized("NFC", text) and not _is_mojibake(text))
    ):
        return text
    return ftfy.fix_text(text, _REPAIR)


def _is_mojibake(text: str) -> bool:
    """Return ``ftfy.badness.is_bad(text)``. It searches for short sequences around non-ASCII characters, so a
    text with few of these is searched only around them, which is quicker."""
    places = [match.span() for match in _FOREIGN.finditer(text)]
    if len(places) * 4 * LONGEST_SIGN > len(text):
        return BADNESS_RE.search(text) is not None
    return any(
        BADNESS_RE.search(text, max(start - LONGEST_SIGN, 0), end + LONGEST_SIGN) for start, end in places
    )


def comparison_key(text: str) -> str:
    """Return the form by which texts are compared: NFKC, case folded, straight quotes, single blanks. Two
    texts with the same key count as the same."""
    if text.isascii():
        folded = text.lower()
    else:
        folded = unicodedata.normalize("NFKC", text).casefold()
        for curly, straight in _QUOTES.items():  # five times as fast as str.translate
            folded = folded.replace(curly, straight)
    return " ".join(folded.split())


def comparison_keys(texts: pl.Series) -> pl.Series:
    """Return ``comparison_key`` of each of ``texts``, none of which is null."""
    # Replace only white space other than single blanks: replacing those too takes four times as long.
    spaced = texts.str.to_lowercase().str.replace_all(r"[\t-\r\x1c-\x1f][\t-\r\x1c- ]*| [\t-\r\x1c- ]+", " ")
    keys = spaced.str.strip_chars(" ").to_list()
    places = texts.str.contains(r"[^\x00-\x7f]").arg_true()
    for place, text in zip(places, texts.gather(places).to_list(), strict=True):
        keys[place] = comparison_key(text)
    return pl.Series(texts.name, keys, dtype=pl.String)


def normalize_records(records: pl.DataFrame, too_long: pl.Expr, *, min_characters: int) -> Stage:
    """Normalise ``title``, ``input`` and ``output``; drop records that are ``too_long``, or have a nearly
    empty input or a blank output.

    Reasons: ``too_long``, ``near_empty`` (the input has fewer than ``min_characters`` characters),
    ``no_output`` (the output is blank).
    """
    cleaned = records.with_columns(
        normalize_texts(records[name]) for name in ("title", "input")
    ).with_columns(pl.col("output").str.strip_chars())
    reason = (
        pl.when(too_long)
        .then(pl.lit("too_long"))
        .when(pl.col("input").str.len_chars() < min_characters)
        .then(pl.lit("near_empty"))
        .when(pl.col("output") == "")
        .then(pl.lit("no_output"))
    )
    return drop("normalization", cleaned, reason)


Turn = dict[str, str]
ROLES = ("user", "assistant")


def turns_of(history: str | None) -> list[Turn]:
    """Return the turns in a record's ``history`` column, oldest first."""
    turns: list[Turn] = json.loads(history) if history else []
    return turns


def cleaned_history(history: str | None, clean: Callable[[str], str] | None) -> str | None:
    """Normalise the turns, ``clean`` the user's turns, and leave out empty turns and unknown roles.

    Assistant turns before the first user turn are left out: chat templates require that the user begins.
    """
    turns: list[Turn] = []
    for turn in turns_of(history):
        text = normalize_text(turn["content"])
        if clean is not None and turn["role"] == "user":
            text = clean(text)
        if text and turn["role"] in ROLES and (turns or turn["role"] == "user"):
            turns.append({"role": turn["role"], "content": text})
    return canonical_json(turns).decode() if turns else None
