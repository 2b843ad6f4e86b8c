"""Cleans tickets: removes quoted history, greetings, signatures and legal notices. Finds
answers that stop in the middle; a text that only lacks its full stop counts as whole."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import partial

import polars as pl
from tunewheel_contracts.formats.example_formats import CleaningSpec
from tunewheel_retrieval.injections import PROMPT_INJECTION, injected

from tunewheel_curate.cleaning.boilerplate import without_disclaimers, without_greeting, without_signature
from tunewheel_curate.cleaning.control_tokens import CONTROL_TOKENS, all_broken_up
from tunewheel_curate.cleaning.normalization import cleaned_history
from tunewheel_curate.cleaning.quotation import asks, without_quotation
from tunewheel_curate.stage import Stage, counted, drop

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


WRITTEN = ("ticket", "feedback")
"""Kinds of records that people typed into a mail or a form. Examples by experts are not cleaned."""
TEXTS = ("title", "input", "output", "history")
QUOTED_HISTORY = "quoted_history"
"""The cut that judges by itself whether the text that is left can stand alone."""
Cut = Callable[[str], str]
Tallies = defaultdict[int, Counter[str]]
"""The number of cuts and marks by row."""


def clean_records(
    records: pl.DataFrame, policy: CleaningSpec, *, free_text: bool, min_characters: int
) -> Stage:
    """Clean inputs, histories and answers of tickets; mark texts that address the model.

    ``free_text`` says whether answers are free text, which is cleaned too.

    Adds the columns ``flags``: the marks, comma-separated, or null; and ``cut``: the text that was cut, below
    the name of its cut, or null. ``counts`` holds the number of records by
    cut and by mark. Reasons: ``near_empty`` (nothing was left of the input), ``near_empty_answer``,
    ``truncated_answer``.
    """
    tallies = defaultdict[int, Counter[str]](Counter)
    marked = _marked(records, tallies)
    question, answer = _cuts(policy, question=True), _cuts(policy, question=False)
    inputs: list[str] = []
    outputs: list[str | None] = []
    histories: list[str | None] = []
    removed: list[str | None] = []
    columns = marked.select("kind", "input", "output", "history")
    for row, (kind, text, output, history) in enumerate(columns.iter_rows()):
        written, cut = kind in WRITTEN, list[tuple[str, str]]()
        inputs.append(_without(text, question, cut) if written else text)
        if output is not None and written and free_text:
            output = _without(output, answer, cut)
        if cut:
            tallies[row].update(name for name, _ in cut)
        outputs.append(output)
        of_turn = partial(_without, cuts=question, cut=cut)
        histories.append(cleaned_history(history, of_turn if written else None))
        removed.append("\n\n".join(f"[{name}]\n{gone}" for name, gone in cut) or None)
    cleaned = marked.with_columns(
        pl.Series("input", inputs, dtype=pl.String),
        pl.Series("output", outputs, dtype=pl.String),
        pl.Series("history", histories, dtype=pl.String),
        pl.Series("cut", removed, dtype=pl.String),
    )
    stage = drop("cleaning", cleaned, _reasons(cleaned, policy, free_text, min_characters))
    return counted(stage, records, tallies)


def _cuts(policy: CleaningSpec, *, question: bool) -> dict[str, Cut]:
    """Return the cuts for questions, or for answers. Greetings and signatures of answers stay: they are the
    expert's style."""
    cuts: dict[str, Cut] = {}
    if policy.quoted_history:
        cuts[QUOTED_HISTORY] = without_quotation
    if policy.disclaimers:
        cuts["disclaimers"] = without_disclaimers
    if policy.signatures and question:
        cuts["signatures"] = without_signature
    if policy.greetings and question:
        cuts["greetings"] = without_greeting
    return cuts


def _without(text: str, cuts: dict[str, Cut], cut: list[tuple[str, str]]) -> str:
    """Return ``text`` without what ``cuts`` remove, and append that to ``cut`` with the cut's name. No cut
    leaves a question without its question mark."""
    if "\n" not in text:  # cuts remove whole lines, and never the only one
        return text
    for name, remove in cuts.items():
        shorter = remove(text)
        if shorter == text or (name != QUOTED_HISTORY and asks(text) and not asks(shorter)):
            continue
        cut.append((name, _removed(text, shorter)))
        text = shorter
    return text


def _removed(text: str, shorter: str) -> str:
    """Return the lines of ``text`` that ``shorter``, a part of its lines, lacks."""
    left = deque(line.strip() for line in shorter.split("\n"))
    gone: list[str] = []
    for line in text.split("\n"):
        if left and line.strip() == left[0]:
            left.popleft()
        else:
            gone.append(line)
    return "\n".join(gone).strip()


def _marked(records: pl.DataFrame, tallies: Tallies) -> pl.DataFrame:
    """Break up control tokens, and write the marks into ``flags``."""
    broken = records.with_columns(all_broken_up(records[name]) for name in TEXTS)
    control = pl.select(
        pl.any_horizontal(pl.lit(broken[name].ne_missing(records[name])) for name in TEXTS)
    ).to_series()
    injection = records.select(
        pl.any_horizontal(injected(pl.col(name)).fill_null(False) for name in TEXTS)
    ).to_series()
    for name, mask in ((CONTROL_TOKENS, control), (PROMPT_INJECTION, injection)):
        for row in mask.arg_true():
            tallies[row][name] += 1
    flags = pl.concat_str(
        pl.when(pl.lit(injection)).then(pl.lit(PROMPT_INJECTION)),
        pl.when(pl.lit(control)).then(pl.lit(CONTROL_TOKENS)),
        separator=",",
        ignore_nulls=True,
    )
    return broken.with_columns(pl.when(pl.lit(injection | control)).then(flags).alias("flags"))


def _reasons(cleaned: pl.DataFrame, policy: CleaningSpec, free_text: bool, min_characters: int) -> pl.Expr:
    flaw = pl.lit(None, dtype=pl.String)
    if free_text:
        flaws = [_flaw(answer, policy) for answer in cleaned["output"].to_list()]
        flaw = pl.lit(pl.Series(flaws, dtype=pl.String))
    short = pl.col("input").str.len_chars() < min_characters
    return pl.when(short).then(pl.lit("near_empty")).otherwise(flaw)


def _flaw(answer: str | None, policy: CleaningSpec) -> str | None:
    if answer is None:
        return None
    if sum(character.isalnum() for character in answer) < policy.min_answer_characters:
        return "near_empty_answer"
    return "truncated_answer" if policy.truncated_answers and is_truncated(answer) else None
