"""Checks that conversations survive the base model's own chat template.

A conversation is sound if three things hold: rendering and tokenising it loses nothing; the mask covers the
assistant's text and no user's text; no message holds a control token of the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from tunewheel_curate.cleaning.normalization import Turn
from tunewheel_curate.examples.formatting import conversation
from tunewheel_curate.stage import Stage, drop

if TYPE_CHECKING:
    from tunewheel_basemodel.tokenizer import PreTrainedTokenizerBase

SAMPLE = 2_000
"""How many conversations are checked. If one of them is unsound, all conversations are checked."""
VERIFIED = "verified"


def check_conversations(
    records: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, *, system_prompt: str, sample: int = SAMPLE
) -> Stage:
    """Drop records whose conversation does not survive the template. Reasons: ``template: <why>``.

    First the ``sample`` records with the smallest ids are checked; ids are hashes, so this is a random
    sample. ``counts`` says how many were checked and sound.
    """
    spoken = [
        [{"role": "system", "content": system_prompt}, *conversation(title, text, history),
         {"role": "assistant", "content": output}]
        for title, text, history, output in records.select("title", "input", "history", "output").iter_rows()
    ]  # fmt: skip
    if not tokenizer.chat_template:
        return drop("template", records, pl.lit(None, dtype=pl.String))
    reasons = _controlling(spoken, tokenizer)
    order = records["record_id"].arg_sort().to_list()
    found = {row: flaw_of(spoken[row], tokenizer) for row in order[:sample] if reasons[row] is None}
    if any(found.values()):
        found |= {row: flaw_of(spoken[row], tokenizer) for row in order[sample:] if reasons[row] is None}
    for row, flaw in found.items():
        reasons[row] = None if flaw is None else f"template: {flaw}"
    stage = drop("template", records, pl.Series(reasons, dtype=pl.String))
    whole = sum(flaw is None for flaw in found.values())
    return Stage(stage.name, stage.kept, stage.dropped, {VERIFIED: whole} if whole else {})


def flaw_of(messages: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return what a conversation loses by render → tokenise → mask → decode; None: it loses nothing."""
    from tunewheel_basemodel.chat import encode_chat, render
    from tunewheel_basemodel.errors import InvalidChat

    try:
        text = render(tokenizer, messages, False)
        ids, mask = encode_chat(tokenizer, messages)
    except InvalidChat:
        return "refused"
    if _decoded(tokenizer, ids).strip() != text.strip():
        return "tokens do not decode to the text"
    runs = _masked_runs(ids, mask)
    answers = [turn["content"] for turn in messages if turn["role"] == "assistant"]
    if len(runs) != len(answers):
        return "mask does not fit the answers"
    # The special token at the end of a turn need not be ``eos_token`` (Gemma's is ``<end_of_turn>``).
    learnt = [_decoded(tokenizer, run, skip_special_tokens=True).strip() for run in runs]
    # A template may put text before the content, such as an empty think block, but not into it.
    if not all(said.endswith(answer.strip()) for said, answer in zip(learnt, answers, strict=True)):
        return "mask does not fit the answers"
    return None


def holds_control_token(texts: pl.Series, tokenizer: Any) -> pl.Series:
    """Return for each of ``texts`` whether it holds a control token of the template of ``tokenizer``."""
    signs = sorted({str(token) for token in tokenizer.all_special_tokens} - {""})
    return texts.str.contains_any(signs) if signs else pl.repeat(False, len(texts), eager=True)


def _controlling(spoken: Sequence[Sequence[Turn]], tokenizer: Any) -> list[str | None]:
    texts = pl.Series(["\n".join(turn["content"] for turn in turns) for turns in spoken], dtype=pl.String)
    held = holds_control_token(texts, tokenizer)
    return ["template: control token in a message" if controls else None for controls in held]


def _masked_runs(ids: Sequence[int], mask: Sequence[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    before = 0
    for token, marked in zip(ids, mask, strict=True):
        if marked and not before:
            runs.append([])
        if marked:
            runs[-1].append(token)
        before = marked
    return runs


def _decoded(tokenizer: Any, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
    text: str = tokenizer.decode(
        ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
    )
    return text
