"""What somebody wrote earlier, quoted in a message: below an attribution, or behind ``>``.

Works line by line, and looks at no line longer than ``LONGEST_LINE``: linear in the text, whatever it holds.
"""

from __future__ import annotations

import re

LONGEST_LINE = 400
_ATTRIBUTION = re.compile(
    r"(?:on|am|le|el|il|op|em|den|w dniu) .{5,300} ?"
    r"(?:wrote|schrieb|a écrit|escribió|ha scritto|schreef|escreveu|napisał|skrev)\b.{0,80}:"
)
_SEPARATOR = re.compile(
    r"[-_* ]{0,20}(?:original message|ursprüngliche nachricht|message d'origine|mensaje original|"
    r"forwarded message|weitergeleitete nachricht)[-_*: ]{0,20}"
)
_FIELDS = (
    ("from:", "von:", "de:", "da:"),
    ("sent:", "date:", "gesendet:", "datum:", "envoyé:", "enviado:", "fecha:"),
    ("to:", "an:", "à:", "para:", "cc:"),
    ("subject:", "betreff:", "objet:", "asunto:"),
)
_FORWARD_LINES = 6


def without_quotation(text: str) -> str:
    """Return ``text`` without quoted history.

    What stands below an attribution or a forwarded head is cut where something was written above it; lines
    behind ``>`` go where there are at least two, or an attribution announces them. A text that is all
    quotation stays as it is.
    """
    lines = text.split("\n")
    announced = False
    for index in range(len(lines)):
        length = _head_length(lines, index)
        if not length:
            continue
        if any(line.strip() and not line.startswith(">") for line in lines[:index]):
            lines = lines[:index]
        else:  # the answer stands below what it quotes
            lines = lines[:index] + lines[index + length :]
            announced = True
        break
    quoted = sum(line.startswith(">") for line in lines)
    if quoted >= (1 if announced else 2):
        lines = [line for line in lines if not line.startswith(">")]
    cut = "\n".join(lines).strip()
    return cut or text


def _head_length(lines: list[str], index: int) -> int:
    """Return how many lines from ``index`` on announce a quotation; 0: none."""
    line = _folded(lines[index])
    if not line or line.startswith(">"):
        return 0
    if _ATTRIBUTION.fullmatch(line) or _SEPARATOR.fullmatch(line):
        return 1
    following = _folded(lines[index + 1]) if index + 1 < len(lines) else ""
    if line.startswith(("on ", "am ", "le ", "el ")) and _ATTRIBUTION.fullmatch(f"{line} {following}"):
        return 2
    return _forwarded_length(lines, index) if line.startswith(_FIELDS[0]) else 0


def _forwarded_length(lines: list[str], index: int) -> int:
    head = [_folded(line) for line in lines[index : index + _FORWARD_LINES]]
    kinds = [[number for number, names in enumerate(_FIELDS) if line.startswith(names)] for line in head]
    found = {number for numbers in kinds for number in numbers}
    if len(found) < 3:
        return 0
    return max(place for place, numbers in enumerate(kinds) if numbers) + 1


def _folded(line: str) -> str:
    return line.strip().casefold() if len(line) <= LONGEST_LINE else ""
