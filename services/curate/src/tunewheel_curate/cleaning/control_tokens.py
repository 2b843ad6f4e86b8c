"""Breaks up control tokens of chat templates (``<|im_start|>``): inside a message they would be tokenised as
control tokens and end the user's turn. So a space is inserted into them."""

from __future__ import annotations

import re

import polars as pl

CONTROL_TOKENS = "control_tokens"
_CONTROL = re.compile(
    r"<\|([\w.\-]{1,64})\|>|<(/?(?:s|bos|eos|pad|unk|mask|start_of_turn|end_of_turn))>|\[(/?INST)\]|<<(/?SYS)>>"
)


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
