"""Marks text that addresses the model (prompt injection). The text is data and stays in the record.

Control tokens of chat templates (``<|im_start|>``) are the exception: inside a message they would be
tokenised as control tokens and end the user's turn. So a space is inserted into them.
"""

from __future__ import annotations

import re

import polars as pl

PROMPT_INJECTION = "prompt_injection"
CONTROL_TOKENS = "control_tokens"

# polars runs this on Rust's regex crate, whose time is linear in the text. Word borders are ASCII only: with
# Unicode borders the crate would use a slow engine for texts that are not ASCII.
_INJECTION = (
    r"(?i)\b(?:ignore|disregard|forget|override|bypass)\b[^\n.!?]{0,40}"
    r"\b(?:instructions?|prompts?|rules|directions|guidelines)\b"
    r"|\b(?:reveal|print|show|repeat|leak|output)\b[^\n.!?]{0,40}"
    r"\b(?:system prompt|hidden prompt|your instructions)\b"
    r"|\byou are now\b[^\n.!?]{0,40}\b(?:dan|jailbroken|unrestricted|unfiltered|a different)\b"
    r"|\b(?:developer|god|jailbreak) mode\b|\bdo anything now\b|\bnew instructions?\s?:"
    r"|\bignorier\w{0,3}\b[^\n.!?]{0,40}\b(?:anweisung|instruktion|regel)\w{0,3}\b"
    r"|\bignore[zrs]?\b[^\n.!?]{0,40}\b(?:instruction|consigne|instruccion|instrucción)\w{0,3}\b"
    # Tickets have lines like "System: Windows 11" too, so only a line that goes on as instructions do counts.
    r"|(?m)^\s{0,8}#{0,6}\s?(?:system|assistant)\s?:\s{0,8}"
    r"(?:you\b|your\b|act\b|always\b|never\b|from now|respond\b|reply\b|answer\b|say\b|sure\b|ignore\b)"
    r"|<\|[a-z0-9_.-]{1,64}\|>|\[/?inst\]|<</?sys>>"
).replace(r"\b", r"(?-u:\b)")
_CONTROL = re.compile(
    r"<\|([\w.\-]{1,64})\|>|<(/?(?:s|bos|eos|pad|unk|mask|start_of_turn|end_of_turn))>|\[(/?INST)\]|<<(/?SYS)>>"
)


def injected(texts: pl.Expr) -> pl.Expr:
    """Return whether a text addresses the model: it tries to replace the instructions, or imitates a role."""
    return texts.str.contains(_INJECTION)


def found_injection(texts: pl.Expr) -> pl.Expr:
    """Return the words by which a text addresses the model; null: it does not."""
    return texts.str.extract(_INJECTION, 0)


def broken_up(text: str) -> str:
    """Return ``text`` with a space inside every control token of chat templates."""
    if "<" not in text and "[" not in text:
        return text
    return _CONTROL.sub(_spaced, text)


def all_broken_up(texts: pl.Series) -> pl.Series:
    """Return ``texts``, some of them null, each as ``broken_up`` returns it."""
    places = texts.str.contains(r"[<\[]").arg_true()
    broken = texts.to_list() if len(places) else []
    for place in places:
        broken[place] = broken_up(broken[place])
    return pl.Series(texts.name, broken, dtype=pl.String) if broken else texts


def _spaced(match: re.Match[str]) -> str:
    sign = match.group()
    return f"{sign[0]} {sign[1:]}"
