"""What reviewers write beside their verdicts, as far as a verdict repeats it: a comment may have a million
characters, and the log takes four million bytes a message."""

from __future__ import annotations

MOST_QUOTED = 500
"""Characters of a comment that the reasons of a rejection quote."""
MOST_KEPT = 10_000
"""Characters of each comment that a verdict holds."""


def shortened(comment: str, most: int) -> str:
    """Return a comment without the blanks around it, and where it is longer than ``most`` its beginning."""
    text = comment.strip()
    return text if len(text) <= most else f"{text[:most]}… (the whole comment is in review.submitted)"
