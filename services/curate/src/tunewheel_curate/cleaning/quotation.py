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
    r"|[-_*# ]{0,20}(?:please )?(?:type your )?reply above this line[-_*#. ]{0,20}"
)
_OPENINGS = ("on ", "am ", "le ", "el ", "il ", "op ", "em ")
_ADDRESSED = re.compile(r".{0,200}<[^<>\s@]{1,64}@[^<>\s@]{3,100}>.{0,40}:")
"""Who wrote what is quoted below, in whatever language."""
_FIELDS = (
    ("from:", "von:", "de:", "da:", "van:", "发件人:", "差出人:"),
    ("sent:", "date:", "gesendet:", "datum:", "envoyé:", "enviado:", "fecha:", "inviato:", "data:",
     "verzonden:", "发送时间:", "日期:", "送信日時:", "日付:"),
    ("to:", "an:", "à:", "para:", "cc:", "a:", "aan:", "收件人:", "宛先:"),
    ("subject:", "betreff:", "objet:", "asunto:", "oggetto:", "assunto:", "onderwerp:", "主题:", "件名:"),
)  # fmt: skip
_FORWARD_LINES = 6
_RULE = re.compile(r"[-_*=]{5,}")
"""What Outlook draws above what it quotes."""


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
        above = _without_rule(lines[:index])
        if any(line.strip() and not line.startswith(">") for line in above):
            lines = above
        else:  # the answer stands below what it quotes
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
    """Tell whether quotation begins on line ``index``, or the next where that one is blank."""
    return next((line for line in lines[index : index + 2] if line.strip()), "").startswith(">")


def _broken_length(line: str, lines: list[str], index: int) -> int:
    """Return over how many lines an attribution goes that a mail program broke: two, or three with an
    address; 0: it is none."""
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
    """Return a line as heads are known by: ``*From:*`` is one, and so is ``De :``."""
    return line.casefold().replace("*", "").replace(" :", ":").strip() if len(line) <= LONGEST_LINE else ""
