"""Removes greetings, signatures and disclaimers: lines around a message that are not about its subject.

A line that may hold a fact stays. Works line by line with bounded patterns, so the time is linear in the
text.
"""

from __future__ import annotations

import re

from tunewheel_curate.cleaning.quotation import asks

LONGEST_LINE = 80
SIGNATURE_LINES = 8
"""How many lines a signature may have below its first, without blank lines."""
SENTENCE_WORDS = 5
"""A line of so many words belongs to the message, unless it has a sign of ``_OF_ADDRESSES``."""
_OF_ADDRESSES = re.compile(r"[|@\d/·•]")
_NAME = (
    r"(?:\s+(?-i:[^\W\d_a-zß-öø-ÿ][\w.'-]{0,30})|\s+(?:team|support|there|all|everybody|everyone|folks|sirs?|"
)
_ADDRESSED = (
    _NAME + r"madam|and|or|to|whom|it|may|concern|mr\.?|mrs\.?|ms\.?|dr\.?|herr|frau|damen|herren|und)){0,6}"
)
_GREETING = re.compile(
    r"(?:hi|hello|hey|dear|good (?:morning|afternoon|evening|day)|greetings|to whom it may concern|hallo|"
    r"guten (?:tag|morgen|abend)|liebe[sr]?|sehr geehrte[rs]?|bonjour|bonsoir|hola|buenos días|"
    r"buenas tardes|ciao)" + _ADDRESSED + r"\s?[,!.:]?",
    re.IGNORECASE,
)
_SIGN_OFF = re.compile(
    r"(?:(?:with )?(?:kind(?:est)?|best|warm(?:est)?|many thanks and) regards|regards|best wishes|"
    r"all the best|(?:many )?thanks(?: (?:a lot|again|in advance|and regards))?|"
    r"thank you(?: (?:very much|so much|in advance))?|thx|cheers|best|sincerely|"
    r"yours (?:sincerely|faithfully|truly)|respectfully|mit freundlichen grüßen|mfg|vielen dank|"
    r"(?:viele|beste|liebe|freundliche) grüße|danke(?: im voraus)?|cordialement|bien à vous|merci|"
    r"(?:un )?saludos?(?: cordial(?:es)?)?|atentamente|(?:muchas )?gracias|(?:cordiali|distinti) saluti|"
    r"grazie|"
    r"(?:met )?vriendelijke groet(?:en)?|(?:hartelijke )?groet(?:en|jes)?|bedankt|atenciosamente|"
    r"cumprimentos|obrigad[oa]|"
    r"abraços|z poważaniem|pozdrawiam|dziękuję|(?:med )?(?:vänliga?|bästa) hälsning(?:ar)?|mvh|"
    r"tack(?: på förhand)?|(?:med )?venlig hilsen|"
    r"(?:どうぞ)?(?:よろしく|宜しく)(?:お願い(?:いた|致)?します|お願い申し上げます)?|"
    r"以上|敬具|此致|敬礼|谢谢|祝好|顺祝商祺|감사합니다)"
    r"(?:\s?[,.!。-]+(?:\s(?-i:[^\W\d_a-zß-öø-ÿ][\w.'-]{0,30})){0,3})?",
    re.IGNORECASE,
)
_DEVICE = re.compile(
    r"(?:sent from my |get outlook for |von meinem |gesendet von |envoyé de mon |enviado desde mi |"
    r"inviato da |verstuurd vanaf |enviado do meu |wysłane z |skickat från |iphoneから送信|"
    r"发自我的)[\w '-]{0,40}\.?",
    re.IGNORECASE,
)
_CARRIES_FACTS = re.compile(
    r"p\.?\s?s\.?\b|\d{1,2}[.)]\s|.{0,20}\b(?:order|ticket|invoice|case|serial|reference|ref|bestell|rechnung)\w{0,20}\b.{0,30}\d",
    re.IGNORECASE,
)
_DISCLAIMER_STARTS = (
    "disclaimer",
    "confidentiality notice",
    "confidentiality note",
    "legal notice",
    "haftungsaus",
)
_DISCLAIMER_MARKS = (
    "confidential", "intended recipient", "intended solely", "intended only", "privileged",
    "if you are not the", "in error", "notify the sender", "delete it", "delete this", "unauthorized",
    "unauthorised", "liability",
    "virus", "dissemination", "vertraulich", "nicht der richtige adressat", "strictly prohibited",
)  # fmt: skip
_PRINTING = "the environment before printing"


def without_greeting(text: str) -> str:
    """Return ``text`` without a first line that only greets. A text that is only a greeting stays."""
    first, separator, rest = text.lstrip().partition("\n")
    if not separator or not rest.strip() or len(first) > LONGEST_LINE:
        return text
    return rest.strip() if _GREETING.fullmatch(first.strip()) else text


def without_signature(text: str) -> str:
    """Return ``text`` without its signature: the lines after ``--`` (RFC 3676 §4.3), and a sign-off or a
    device's own line ("sent from my …") near the end. The signature stays if a line in it seems to hold a
    fact, such as a postscript or an order number."""
    lines = text.rstrip().split("\n")
    filled = [number for number, line in enumerate(lines) if line.strip()]
    for place in range(max(1, len(filled) - SIGNATURE_LINES - 1), len(filled)):
        opening, *others = (lines[number].strip() for number in filled[place:])
        if _opens_signature(opening) and all(map(_is_signature, others)):
            return "\n".join(lines[: filled[place]]).rstrip()
    return text


def without_disclaimers(text: str) -> str:
    """Return ``text`` without paragraphs that are legal or printing notices. The first paragraph always
    stays."""
    first, *others = text.split("\n\n")
    kept = [first, *(paragraph for paragraph in others if not _is_disclaimer(paragraph))]
    return text if len(kept) == len(others) + 1 else "\n\n".join(kept).strip()


def _opens_signature(line: str) -> bool:
    if len(line) > LONGEST_LINE:
        return False
    return line == "--" or _DEVICE.fullmatch(line) is not None or _SIGN_OFF.fullmatch(line) is not None


def _is_signature(line: str) -> bool:
    is_sentence = len(line.split()) >= SENTENCE_WORDS and _OF_ADDRESSES.search(line) is None
    return len(line) <= LONGEST_LINE and not (is_sentence or asks(line) or _CARRIES_FACTS.match(line))


def _is_disclaimer(paragraph: str) -> bool:
    start = paragraph.strip()[:600].casefold()
    if _PRINTING in start and len(paragraph) <= 200:
        return True
    marks = sum(mark in start for mark in _DISCLAIMER_MARKS)
    return marks >= (1 if start.startswith(_DISCLAIMER_STARTS) else 3)
