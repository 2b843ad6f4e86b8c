"""Text as people meant it: mojibake repaired, control characters gone, white space regular."""

from __future__ import annotations

import re
import unicodedata

import ftfy
import polars as pl

from tunewheel_curate.stage import Stage, drop

# Curly quotes stay: production inputs come with them, and the model should see what it will meet.
_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, explain=False)
_SPACES = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\n{3,}")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"'})  # noqa: RUF001


_DOUBTFUL = re.compile(r"[^\n -~]|&|  |\n | \n|\n\n\n")
"""In a text without it there is nothing to repair: no characters but printable ASCII, no entities, no blanks
that would go."""


def normalize_text(text: str) -> str:
    """Return ``text`` repaired (ftfy), in NFC, without control characters, trailing or repeated blanks."""
    if _DOUBTFUL.search(text) is None:
        return text.strip()
    fixed = ftfy.fix_text(text, _REPAIR)
    lines = (_SPACES.sub(" ", line).strip() for line in fixed.split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def comparison_key(text: str) -> str:
    """Return the form in which two texts count as the same: NFKC, case folded, straight quotes, white
    space collapsed."""
    if text.isascii():
        folded = text.lower()
    else:
        folded = unicodedata.normalize("NFKC", text).casefold().translate(_QUOTES)
    return " ".join(folded.split())


def normalize_records(records: pl.DataFrame, *, min_characters: int) -> Stage:
    """Normalise ``title``, ``input`` and ``output``; drop inputs that say next to nothing.

    Reasons: ``near_empty`` (the input has fewer than ``min_characters`` characters), ``no_output`` (the
    output is blank).
    """
    cleaned = records.with_columns(
        pl.Series(name, [normalize_text(text) for text in records[name]], dtype=pl.String)
        for name in ("title", "input")
    ).with_columns(pl.col("output").str.strip_chars())
    reason = (
        pl.when(pl.col("input").str.len_chars() < min_characters)
        .then(pl.lit("near_empty"))
        .when(pl.col("output") == "")
        .then(pl.lit("no_output"))
    )
    return drop("normalization", cleaned, reason)
