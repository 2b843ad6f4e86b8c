"""Finds text that addresses the model (prompt injection). The text is data and stays as it is.

The patterns are read in texts as a model reads them: without invisible characters, and with compatible
characters replaced (NFKC, UAX 15), such as fullwidth letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import polars as pl
from tunewheel_contracts.identity import content_sha256

from tunewheel_retrieval.hits import Passage

_GAP = r"[^\n.!?]{0,40}"
"""What may stand between two words of one sentence."""
# Honest texts say similar things: "ignore all previous mails", "n'oubliez pas les consignes", "ohne
# Einschränkungen", "message to the assistant". So each pattern has a word that is said to a model alone.
_PATTERNS = (
    # to drop what the model was told
    r"\b(?:ignore|disregard|forget|(?:override|bypass) "
    rf"(?:all|any|every|your|its|previous|prior|safety|content|system))\b{_GAP}"
    r"\b(?:instructions?|prompts?|rules|directions|guidelines|content policy)\b",
    r"\b(?:ignore|disregard|forget) (?:all|everything|anything)(?: of)?(?: the)?(?: text)? above\b",
    r"\b(?:ignore|disregard|forget) (?:what|all|everything)(?: that)? you (?:were|have been) told\b",
    rf"\b(?:ignore|disregard|forget)\b{_GAP}"
    r"\byour (?:training|programming|restrictions|constraints|safety|ethics)\b",
    rf"\b(?:ignorier(?:e|en sie)|vergiss|vergesst|missachte)\b{_GAP}"
    r"\b(?:alles?|sämtliche|deine|eure|ihre|bisherig\w{1,2}|vorherig\w{1,2}|vorigen|früheren|obigen)\b"
    r"[^\n.!?]{0,20}\b(?:anweisung|instruktion|regel|richtlinie|vorgabe)\w{0,3}\b",
    r"\b(?:ignore[zrs]?|ignora|oublie[zs]?|olvida|dimentica)\b[^\n.!?]{0,20}"
    r"\b(?:toutes|tes|vos|todas|tus|tutte|le tue)\b"
    r"[^\n.!?]{0,20}\b(?:instruction|consigne|instruccion|instrucción|istruzion)\w{0,3}\b",
    r"\b(?:ignore[zrs]?|ignora|oublie[zs]?|olvida|dimentica)\b[^\n.!?]{0,20}"
    r"\b(?:instruction|consigne|instruccion|instrucción|istruzion)\w{0,3}\s"
    r"(?:précéd|antérieur|ci-dessus|initial|anterior|previa|precedent)",
    r"\bsafety (?:protocols?|filters?|guidelines) (?:are |is )?(?:now )?(?:disabled|off|suspended|lifted)\b",
    r"\bnew instructions?\s?:|\bneue anweisung(?:en)?\s?:|\bnew directive\s?:",
    r"\byour (?:new|real|true) (?:task|directive|instructions?|objective) (?:is|are|supersedes?)\b",
    # to say what it was told
    r"\byour (?:system|hidden) (?:prompt|instructions?)\b",
    r"\byour (?:initial|original|secret|internal) prompt\b",
    r"\b(?:what is|what was|summari[sz]e|translate|copy|echo)\b[^\n.!?]{0,20}"
    r"\b(?:system prompt|your prompt)\b",
    r"\b(?:repeat|output|echo) (?:all |all of )?(?:the |every)?(?:text|words|thing) above\b",
    rf"\b(?:reveal|print|show|repeat|leak|output|dump|tell me|display)\b{_GAP}"
    r"\b(?:system (?:prompt|message|instructions?)|hidden prompt|your (?:initial |original |exact )?"
    r"(?:instructions|prompt)|instructions (?:that )?you were given)\b",
    r"\bdeine (?:systemanweisung|systemprompt|system-prompt)\w{0,3}\b",
    r"\b(?:tes|tus|le tue|il tuo|tu) (?:instructions système|instrucciones del sistema|"
    r"istruzioni di sistema|prompt de[l]? sistema|prompt di sistema|prompt système)",
    # to be another model
    rf"\byou are (?:now|from now on)\b{_GAP}"
    r"\b(?:dan|jailbroken|unrestricted|unfiltered|uncensored|a different|no longer bound|"
    r"without (?:any )?(?:restrictions|rules|filters?))\b",
    r"\byou are (?:dan\b|an? (?:evil|unrestricted|uncensored|unfiltered|jailbroken|amoral)\b)",
    rf"\b(?:pretend|respond|answer|act as)\b{_GAP}"
    r"\b(?:(?:have|with|has) no (?:rules|restrictions|filters?|limits|content policy)|uncensored|"
    r"unrestricted (?:model|ai)|without (?:any )?(?:restrictions|filters?))\b",
    r"\byou (?:now )?have no (?:rules|restrictions|filters?|limits)\b",
    r"\b(?:no|without(?: any)?|free of|not bound by) (?:ethical|moral) "
    r"(?:guidelines|restrictions|limits|limitations|filters?|policies|constraints|rules)\b",
    r"\b(?:developer|god|jailbreak|dan) mode\b|\bdo anything now\b",
    r"\b(?:base64|rot13|hex|binary)\b[^\n]{0,60}\b(?:do (?:exactly )?what it says|"
    r"follow the instructions?|execute it)\b",
    # to a model by name
    r"\b(?:note|notice|message|instructions?|attention|important)[ :,]{1,3}(?:to|for) "
    r"(?:the |any |all |every )?(?:ai|bot|chatbot|language model|llm)s?\b",
    r"\b(?:ai|llm) (?:assistant|agent|model|system)s?,? (?:reading|processing|summari[sz]ing|reviewing)\b",
    r"\bif you(?: are|'re) an? (?:ai|llm|language model|chatbot)\b",
    # Tickets have lines like "System: Windows 11" too, so only a line that goes on as instructions do counts.
    r"(?m:^)\s{0,8}#{0,6}\s?(?:system|assistant)\s?:\s{0,8}"
    r"(?:you\b|your\b|act\b|always\b|never\b|from now|respond\b|reply\b|answer\b|say\b|sure\b|ignore\b)",
    r"\bend of (?:user|system) (?:input|prompt|instructions)\b",
    # control tokens of chat templates
    r"<\|[a-z0-9_.-]{1,64}\|>|\[/?inst\]|<</?sys>>",
)
_VERBS = r"(?:ignore[zrs]?|disregard|forget|override|bypass|oublie[zs]?)"
_APOSTROPHE = r"['\x{2019}]"
_NEGATED = (
    rf"(?i)(?-u:\b)(?:(?:do|does|must|may|can|should|shall|will|would|could)(?:\snot|n{_APOSTROPHE}t)\s|"
    rf"never\s|cannot\s|n{_APOSTROPHE}|(?:pas|jamais|no|nunca)\s){_VERBS}(?-u:\b)"
)
"""Such as "do not forget": whoever says that wants an instruction to be followed."""
# polars runs this on Rust's regex crate, whose time is linear in the text. Word borders are ASCII only: with
# Unicode borders the crate would use a slow engine for texts that are not ASCII.
_INJECTION = "(?i)" + "|".join(_PATTERNS).replace(r"\b", r"(?-u:\b)")
T = TypeVar("T")
PROMPT_INJECTION = "prompt_injection"
"""The mark of such a text."""
_UNSEEN = r"[\p{Cf}\x{fe00}-\x{fe0f}\x{e0100}-\x{e01ef}[\p{Cc}&&[^\t\n\r]]]"
"""Characters that no font shows, variation selectors among them. A prompt leaves them out."""
_WRAPPED = r"[ \t]*\n[ \t>]*(\w)|[ \t]{2,}"
"""Where a sentence goes on in the next line of a text or of a quotation, and white space that a reader takes
for one space. No item of a list begins so, and no paragraph."""
FINDER_SHA256 = content_sha256([_INJECTION, _NEGATED, _WRAPPED, _UNSEEN])
"""Names what is found: texts that were searched by other patterns must be searched again."""
_LONGEST = 128
"""More characters than a finding has before or after any place in it."""


def injected(texts: pl.Expr) -> pl.Expr:
    """Return whether a text addresses the model: it tries to replace the instructions, or imitates a role."""
    return found_injection(texts).is_not_null()


def found_injection(texts: pl.Expr) -> pl.Expr:
    """Return the words by which a text addresses the model; null: it does not."""
    return texts.map_batches(_words_in, return_dtype=pl.String)


def injected_passages(passages: Sequence[Passage]) -> dict[str, str]:
    """Return, by ``passage_id``, the words by which passages address the model.

    ``passages`` are in reading order. A sentence that is cut between two passages counts for both.
    """
    # as paragraphs, so that a title is not read as the beginning of the text below it
    whole = ["\n\n".join((one.title, one.heading, one.text)) for one in passages]
    found = {passage.passage_id: words for passage, words in _found(passages, whole)}
    cuts = [two for two in pairwise(passages) if _place(two[0]) == _place(two[1])]
    # the first sign keeps a line in the middle of a passage from looking like the beginning of a line
    across = [f"…{one.text[-_LONGEST:]} {other.text[:_LONGEST]}" for one, other in cuts]
    for (one, other), words in _found(cuts, across):
        if not found.keys() & {one.passage_id, other.passage_id}:
            found |= {one.passage_id: words, other.passage_id: words}
    return found


def _found(subjects: Sequence[T], texts: Sequence[str]) -> Iterator[tuple[T, str]]:
    words = pl.select(found_injection(pl.lit(pl.Series(texts, dtype=pl.String)))).to_series()
    return ((subject, said) for subject, said in zip(subjects, words, strict=True) if said is not None)


def _place(passage: Passage) -> tuple[str, str]:
    return passage.document_id, passage.heading


def _words_in(texts: pl.Series) -> pl.Series:
    read = _without_disguise(texts)
    words = _said(read)
    wrapped = (words.is_null() & read.str.contains(r"[\n\t]|  ").fill_null(False)).arg_true()
    if not len(wrapped):
        return words
    return words.scatter(wrapped, _said(read.gather(wrapped).str.replace_all(_WRAPPED, " $1")))


def _said(read: pl.Series) -> pl.Series:
    words = read.str.extract(_INJECTION, 0)
    found = words.is_not_null().arg_true()
    if not len(found):
        return words
    return words.scatter(found, read.gather(found).str.replace_all(_NEGATED, "").str.extract(_INJECTION, 0))


def _without_disguise(texts: pl.Series) -> pl.Series:
    foreign = texts.str.contains(r"[^\t\n\r -~]").arg_true()
    if not len(foreign):  # most texts are printable ASCII, which NFKC leaves as it is
        return texts
    return texts.scatter(foreign, texts.gather(foreign).str.replace_all(_UNSEEN, "").str.normalize("NFKC"))
