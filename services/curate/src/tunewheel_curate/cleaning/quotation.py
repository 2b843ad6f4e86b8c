"""Removes the quoted earlier messages of a mail, where the text that is left can stand alone.

A mail program writes a head above a quotation: an attribution ("On …, … wrote:"), a separator, or the fields
of the quoted mail. The head needs marks that a person seldom types: a time, an address, a date field. In
doubt the text stays as it is: a lost question does more harm than a quotation that stays. Works line by line
and ignores lines longer than ``LONGEST_LINE``, so the time is linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_LINE = 400
_ATTRIBUTION = re.compile(
    r"(?:on|am|le|el|il|op|em|den|w dniu) .{5,300} ?"
    r"(?:wrote|schrieb|a écrit|escribió|ha scritto|schreef|geschreven|escreveu|napisał|pisze|skrev)\b.{0,80}:"
)
"""The line above a quotation that says who wrote it, in several languages."""
_ADDRESS = re.compile(r"<[^<>\s@]{1,64}@[^<>\s@]{3,100}>")
_TIME = re.compile(r"(?<!\d)\d{1,2}[:.]\d\d(?!\d)")
_SEPARATOR = re.compile(
    r"[-_* ]{0,20}(?:original message|ursprüngliche nachricht|message d'origine|mensaje original|"
    r"messaggio originale|oorspronkelijk bericht|mensagem original)[-_*: ]{0,20}"
    r"|[-_*# ]{0,20}(?:please )?(?:type your )?reply above this line[-_*#. ]{0,20}"
)
_FORWARD = re.compile(
    r"[-_* ]{0,20}(?:begin )?(?:forwarded (?:message|by .{1,80})|weitergeleitete nachricht|"
    r"anfang der weitergeleiteten (?:nachricht|e-mail)|message transféré|"
    r"début du message (?:transféré|réexpédié)|mensaje reenviado|"
    r"messaggio inoltrato|doorgestuurd bericht|mensagem encaminhada|wiadomość przekazana|"
    r"vidarebefordrat meddelande|転送メッセージ|转发的邮件|转发邮件)[-_*: ]{0,20}"
)
"""The line above a forwarded mail, which is what the sender asks about."""
_OPENINGS = ("on ", "am ", "le ", "el ", "il ", "op ", "em ", "den ")
_FIELDS = (
    ("from:", "von:", "de:", "da:", "van:", "od:", "från:", "发件人:", "差出人:"),
    ("sent:", "date:", "gesendet:", "datum:", "envoyé:", "enviado:", "enviado el:", "fecha:", "inviato:",
     "data:", "verzonden:", "wysłano:", "skickat:", "发送时间:", "日期:", "送信日時:", "日付:"),
    ("to:", "an:", "à:", "para:", "cc:", "a:", "aan:", "do:", "till:", "收件人:", "宛先:"),
    ("subject:", "betreff:", "objet:", "asunto:", "oggetto:", "assunto:", "onderwerp:", "temat:", "ämne:",
     "主题:", "件名:"),
)  # fmt: skip
_DATE = 1
"""The place of the dates in ``_FIELDS``."""
_FORWARD_LINES = 6
_RULE = re.compile(r"[-_*=]{5,}")
"""The rule that Outlook draws above a quotation."""
_POINTS_BELOW = re.compile(
    r"\b(?:below|beneath|inline|in line|following|forward(?:ed|ing)?|fyi|unten|untenstehende?|folgende[nrs]?|"
    r"ci-dessous|suivant|abajo|siguiente|di seguito|qui sotto|hieronder|onderstaande?|abaixo|poniżej|nedan)\b"
    r"|下記|以下|下面"
)
"""Words by which a text speaks of the text below itself."""
_ENDS = (".", "!", "?", "…", ")", "。", "！", "？", "؟")  # noqa: RUF001
_ASKS = re.compile(r"[?？؟]")  # noqa: RUF001
_WORD = re.compile(r"[^\W\d_]{2,}")
_LEAST_WORDS = 4
_LEAST_SIGNS = 6
"""Least characters of a text in a script without blanks between words."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The lines above a quotation: ``length`` lines from ``start`` on."""

    start: int
    length: int


def without_quotation(text: str) -> str:
    """Return ``text`` without quoted history.

    - Text above a head: the head and all below it are cut. Own text below the last line behind ``>`` stays.
      Nothing is cut if neither text can stand alone.
    - No text above: the head is cut, and the lines behind ``>`` below it.
    - Answers between lines behind ``>``: nothing is cut. A mail program may have wrapped a quoted line, so a
      single line between two of them is no answer if the text above can stand alone.
    - No head: lines behind ``>`` at the end are cut below a finished sentence.

    A forwarded message, and a text that is only a quotation, stay.
    """
    lines = text.split("\n")
    head = _find_head(lines)
    own = _without_last_quotes(lines) if head is None else _without_head(lines, head)
    cut = "\n".join(own).strip()
    return cut or text


def stands_alone(text: str) -> bool:
    """Return whether a reader understands ``text`` without the text below it: it has enough words, announces
    nothing, and does not speak of the text below."""
    text = text.strip()
    last = text.rpartition("\n")[2].strip()
    if last.endswith((":", "：")) or _POINTS_BELOW.search(text[-2_000:].casefold()):  # noqa: RUF001
        return False
    words = _WORD.findall(text[:2_000])
    signs = sum(len(word) for word in words if word[0] > "\u2e7f")
    return len(words) >= _LEAST_WORDS or signs >= _LEAST_SIGNS or (asks(text) and len(words) > 1)


def asks(text: str) -> bool:
    """Return whether ``text`` has a question mark of any script."""
    return _ASKS.search(text) is not None


def _is_own(lines: list[str]) -> bool:
    return any(line.strip() and not line.startswith(">") for line in lines)


def _without_head(lines: list[str], head: _Head) -> list[str]:
    """Return the text above and below a head without its quotation."""
    above, below = _without_rule(lines[: head.start]), lines[head.start + head.length :]
    is_alone = stands_alone("\n".join(above))
    if not _quotes(below, 0):
        return above if is_alone else lines if _is_own(above) else [*above, *below]
    marks = [line.startswith(">") for line in below]
    first, last = marks.index(True), len(marks) - 1 - marks[::-1].index(True)
    between = [place for place in range(first, last) if below[place].strip() and not marks[place]]
    are_wrapped = all(marks[place - 1] and marks[place + 1] for place in between)
    if between and not (is_alone and are_wrapped):
        return lines
    rest = below[last + 1 :]
    return [*above, *rest] if is_alone or not _is_own(above) or stands_alone("\n".join(rest)) else lines


def _without_last_quotes(lines: list[str]) -> list[str]:
    last = len(lines)
    while last and (not lines[last - 1].strip() or lines[last - 1].startswith(">")):
        last -= 1
    above = "\n".join(lines[:last]).rstrip()
    is_quoted = sum(line.startswith(">") for line in lines[last:]) > 1 and not lines[last].strip()
    return lines[:last] if is_quoted and above.endswith(_ENDS) and stands_alone(above) else lines


def _without_rule(lines: list[str]) -> list[str]:
    last = next((number for number in range(len(lines), 0, -1) if lines[number - 1].strip()), 0)
    return lines[: last - 1] if last and _RULE.fullmatch(lines[last - 1].strip()) else lines


def _find_head(lines: list[str]) -> _Head | None:
    """Return the first head; None if there is none, or if a forwarded message comes first."""
    for index in range(len(lines)):
        line = _folded(lines[index])
        if not line or line.startswith(">"):
            continue
        if _FORWARD.fullmatch(line):
            return None
        if length := _head_length(line, lines, index):
            return _Head(index, length)
    return None


def _head_length(line: str, lines: list[str], index: int) -> int:
    """Return how many lines from ``index`` on announce a quotation; 0: none."""
    if _SEPARATOR.fullmatch(line):
        return 1
    if line.startswith(_FIELDS[0]) and (
        not index or not lines[index - 1].strip() or _is_ruled(lines[index - 1])
    ):
        return _fields_length(lines, index)
    if line.endswith(":"):
        return int(_attributes(line, lines, index + 1))
    return _broken_length(line, lines, index) if line.startswith(_OPENINGS) else 0


def _is_ruled(line: str) -> bool:
    return _RULE.fullmatch(line.strip()) is not None or _SEPARATOR.fullmatch(_folded(line)) is not None


def _attributes(line: str, lines: list[str], below: int) -> bool:
    """Return whether ``line`` says who wrote the lines from ``below`` on. A line that a person typed has no
    time and no address, and no quotation follows."""
    if _ADDRESS.search(line) is None and _ATTRIBUTION.fullmatch(line) is None:
        return False
    return _TIME.search(line) is not None or _quotes(lines, below)


def _quotes(lines: list[str], index: int) -> bool:
    """Return whether a quotation begins on line ``index``, or on the next line if that one is blank."""
    return next((line for line in lines[index : index + 2] if line.strip()), "").startswith(">")


def _broken_length(line: str, lines: list[str], index: int) -> int:
    """Return the number of lines of an attribution that a mail program wrapped: two, or three with an
    address; 0: there is none."""
    for more in (1, 2):
        line = f"{line} {_folded(lines[index + more])}" if index + more < len(lines) else ""
        is_whole = _ATTRIBUTION.fullmatch(line) is not None and (more == 1 or "@" in line)
        if is_whole and _attributes(line, lines, index + more + 1):
            return more + 1
    return 0


def _fields_length(lines: list[str], index: int) -> int:
    """Return the number of lines with the fields of a quoted mail: three kinds, a date among them; 0: these
    are no such fields."""
    head = [_folded(line) for line in lines[index : index + _FORWARD_LINES]]
    kinds = [[number for number, names in enumerate(_FIELDS) if line.startswith(names)] for line in head]
    found = {number for numbers in kinds for number in numbers}
    if len(found) < 3 or _DATE not in found:
        return 0
    return max(place for place, numbers in enumerate(kinds) if numbers) + 1


def _folded(line: str) -> str:
    """Return a line in the form by which heads are recognised: ``*From:*`` and ``De :`` are heads."""
    return line.casefold().replace("*", "").replace(" :", ":").strip() if len(line) <= LONGEST_LINE else ""
