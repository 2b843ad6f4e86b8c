"""Removes quoted earlier messages: below an attribution, or behind ``>``.

Works line by line and ignores lines longer than ``LONGEST_LINE``, so the time is linear in the text.
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
    r"|[-_*# ]{0,20}(?:please )?(?:type your )?reply above this line[-_*#. ]{0,20}"
)
_OPENINGS = ("on ", "am ", "le ", "el ", "il ", "op ", "em ")
_ADDRESSED = re.compile(r".{0,200}<[^<>\s@]{1,64}@[^<>\s@]{3,100}>.{0,40}:")
"""The line above a quotation that says who wrote it, in several languages."""
_FIELDS = (
    ("from:", "von:", "de:", "da:", "van:", "发件人:", "差出人:"),
    ("sent:", "date:", "gesendet:", "datum:", "envoyé:", "enviado:", "fecha:", "inviato:", "data:",
     "verzonden:", "发送时间:", "日期:", "送信日時:", "日付:"),
    ("to:", "an:", "à:", "para:", "cc:", "a:", "aan:", "收件人:", "宛先:"),
    ("subject:", "betreff:", "objet:", "asunto:", "oggetto:", "assunto:", "onderwerp:", "主题:", "件名:"),
)  # fmt: skip
_FORWARD_LINES = 6
_RULE = re.compile(r"[-_*=]{5,}")
"""The rule that Outlook draws above a quotation."""


def without_quotation(text: str) -> str:
    """Return ``text`` without quoted history.

    The text below an attribution or a forwarded head is cut if there is text above it. Lines behind ``>`` are
    cut if there are at least two, or if an attribution comes before them. A text that is only a quotation
    stays.
    """
    lines = text.split("\n")
    announced = False
    for index in range(len(lines)):
        length = _head_length(lines, index)
        if not length:
            continue
        above = _without_rule(lines[:index])
        if any(line.strip() and not line.startswith(">") for line in above):
            lines = above
        else:  # the answer is below its quotation
            lines = above + lines[index + length :]
            announced = True
        break
    quoted = sum(line.startswith(">") for line in lines)
    if quoted >= (1 if announced else 2):
        lines = [line for line in lines if not line.startswith(">")]
    cut = "\n".join(lines).strip()
    return cut or text


def _without_rule(lines: list[str]) -> list[str]:
    last = next((number for number in range(len(lines), 0, -1) if lines[number - 1].strip()), 0)
    return lines[: last - 1] if last and _RULE.fullmatch(lines[last - 1].strip()) else lines


def _head_length(lines: list[str], index: int) -> int:
    """Return how many lines from ``index`` on announce a quotation; 0: none."""
    line = _folded(lines[index])
    if not line or line.startswith(">"):
        return 0
    if _ATTRIBUTION.fullmatch(line) or _SEPARATOR.fullmatch(line):
        return 1
    if line.endswith(":") and _ADDRESSED.fullmatch(line) and _quotes(lines, index + 1):
        return 1
    if line.startswith(_OPENINGS) and (length := _broken_length(line, lines, index)):
        return length
    return _forwarded_length(lines, index) if line.startswith(_FIELDS[0]) else 0


def _quotes(lines: list[str], index: int) -> bool:
    """Return whether a quotation begins on line ``index``, or on the next line if that one is blank."""
    return next((line for line in lines[index : index + 2] if line.strip()), "").startswith(">")


def _broken_length(line: str, lines: list[str], index: int) -> int:
    """Return the number of lines of an attribution that a mail program wrapped: two, or three with an
    address; 0: there is none."""
    two = f"{line} {_folded(lines[index + 1])}" if index + 1 < len(lines) else line
    if _ATTRIBUTION.fullmatch(two):
        return 2
    three = f"{two} {_folded(lines[index + 2])}" if index + 2 < len(lines) else ""
    return 3 if "@" in three and _ATTRIBUTION.fullmatch(three) else 0


def _forwarded_length(lines: list[str], index: int) -> int:
    head = [_folded(line) for line in lines[index : index + _FORWARD_LINES]]
    kinds = [[number for number, names in enumerate(_FIELDS) if line.startswith(names)] for line in head]
    found = {number for numbers in kinds for number in numbers}
    if len(found) < 3:
        return 0
    return max(place for place, numbers in enumerate(kinds) if numbers) + 1


def _folded(line: str) -> str:
    """Return a line in the form by which forwarded heads are recognised: ``*From:*`` and ``De :`` are
    heads."""
    return line.casefold().replace("*", "").replace(" :", ":").strip() if len(line) <= LONGEST_LINE else ""
