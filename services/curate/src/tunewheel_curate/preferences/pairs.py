"""Preference pairs: a prompt, the answer to prefer (chosen), and the answer to avoid (rejected).

Pairs come from corrections and negative examples. The chosen answer went through all stages of examples. The
rejected answer is normalised and redacted too, but need not be valid: that may be what is wrong with it. A
pair belongs to the training side: its record, or the duplicate that replaced the record, is trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_id

from tunewheel_curate.evaluation.leakage import find_leaks, said_in
from tunewheel_curate.examples.formatting import MESSAGE, format_examples
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.holdout.memory import ComparedRecords
from tunewheel_curate.holdout.splitting import Split
from tunewheel_curate.stage import RATED

STAGE = "preferences"
PREFERENCE_SCHEMA: dict[str, pl.DataType] = {
    "pair_id": pl.String(),
    "prompt": pl.List(MESSAGE),
    "chosen": pl.String(),
    "rejected": pl.String(),
    "group": pl.String(),
    "trust": pl.String(),
    "record_id": pl.String(),
}
"""The columns of ``preferences.parquet``, as ``PreferencePair`` names them."""


@dataclass(frozen=True)
class Preferences:
    """Pairs sorted by ``pair_id``, and the funnel of the rejected answers."""

    pairs: pl.DataFrame
    funnel: FunnelStage


def preference_pairs(
    distinct: pl.DataFrame, compared: ComparedRecords, split: Split, spec: ProjectSpec, tokens: Tokens
) -> Preferences | None:
    """Return the pairs of a version; None: none of the ``distinct`` records has a ``rejected_output``.

    A record that was dropped as a duplicate of a training example may still hold a question of the holdout,
    so this is checked here. Reasons in the funnel: ``record_dropped`` (before the records were ``compared``,
    see the lineage), ``held_out``, ``blank``, ``same_answer``, ``too_long``, ``repeated``.
    """
    paired = pl.col("rejected_output").is_not_null() & (pl.col("trust") != RATED)
    offered = distinct.filter(paired)
    if offered.is_empty():
        return None
    cleaned = compared.records.filter(paired)
    examples = format_examples(cleaned, system_prompt=spec.task.system_prompt)
    leaks = find_leaks(said_in(examples), split.holdout).train
    members = compared.members(split.train["record_ids"].to_list())
    trains = pl.col("record_ids").list.first().is_in([name for names in members for name in names])
    own = examples.filter(trains & ~pl.int_range(pl.len()).is_in(list(leaks)))
    reasons: Counter[str] = Counter()
    if lost := offered.height - cleaned.height:
        reasons["record_dropped"] = lost
    if held := cleaned.height - own.height:
        reasons["held_out"] = held
    rejected: dict[str, str] = dict(cleaned.select("record_id", "rejected_output").iter_rows())
    pairs: dict[str, dict[str, object]] = {}
    for example in own.sort(pl.col("record_ids").list.first()).iter_rows(named=True):
        record_id = example["record_ids"][0]
        pair = _pair(example, record_id, rejected[record_id])
        reason = "repeated" if pair["pair_id"] in pairs else _refusal(pair, spec.dataset.max_tokens, tokens)
        if reason is None:
            pairs[str(pair["pair_id"])] = pair
        else:
            reasons[reason] += 1
    frame = pl.DataFrame([pairs[name] for name in sorted(pairs)], schema=PREFERENCE_SCHEMA)
    funnel = FunnelStage(
        stage=STAGE, entered=offered.height, left=frame.height, reasons=dict(sorted(reasons.items()))
    )
    return Preferences(frame, funnel)


def _pair(example: Mapping[str, object], record_id: str, rejected: str) -> dict[str, object]:
    messages: Sequence[Mapping[str, str]] = example["messages"]  # type: ignore[assignment]
    prompt, chosen = list(messages[:-1]), messages[-1]["content"]
    return {
        "pair_id": content_id("pair", [prompt, chosen, rejected]),
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "group": example["group"],
        "trust": example["trust"],
        "record_id": record_id,
    }


def _refusal(pair: Mapping[str, object], max_tokens: int, tokens: Tokens) -> str | None:
    rejected = str(pair["rejected"])
    if not rejected:
        return "blank"
    if rejected == pair["chosen"]:
        return "same_answer"
    prompt: list[Mapping[str, str]] = pair["prompt"]  # type: ignore[assignment]
    (size,) = tokens.conversation_sizes([[*(turn["content"] for turn in prompt), rejected]])
    return "too_long" if size > max_tokens else None
