"""Shortens reviewers' comments for verdicts: a comment may have a million characters, but a message on the
log at most four million bytes."""

from __future__ import annotations

MOST_QUOTED = 500
"""The most characters of a comment that the reasons of a rejection quote."""
MOST_KEPT = 10_000
"""The most characters of each comment in a verdict."""


def shortened(comment: str, most: int) -> str:
    """Return a comment without surrounding blanks, cut after ``most`` characters."""
    text = comment.strip()
    return text if len(text) <= most else f"{text[:most]}… (the whole comment is in review.submitted)"
