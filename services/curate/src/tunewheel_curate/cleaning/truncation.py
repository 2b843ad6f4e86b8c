"""Finds answers that stop in the middle. A text that only lacks its full stop counts as whole."""

from __future__ import annotations

import re

LEAST_CHARACTERS = 160
"""Shorter answers are too often fragments on purpose (labels, commands, names)."""
_DANGLING = re.compile(
    r"(?i)(?:^|\s)(?:and|or|but|the|a|an|to|of|for|with|in|on|at|by|from|that|which|because|if|your|our|is|are|und|"
    r"oder|der|die|das|et|ou|le|la|les|y|o|el|los)\s*$"
)
_TAIL = 40


def is_truncated(answer: str) -> bool:
    """Return whether a free-text answer stops inside a code block or in mid-sentence. A long answer stops in
    mid-sentence if it ends in a comma, an opening bracket, a hyphenated half of a word, or a word that cannot
    end a sentence."""
    text = answer.rstrip()
    if sum(line.lstrip().startswith("```") for line in text.split("\n")) % 2:
        return True
    if len(text) < LEAST_CHARACTERS:
        return False
    last = text[-1]
    if last in ",([{\u060c\u3001" or (last == "-" and text[-2].isalpha()):
        return True
    return _DANGLING.search(text[-_TAIL:]) is not None
