"""The list of curation steps, in the order in which they run.

First ``DRAFTS`` makes rows of every kind: records with answers, drafts made from documents, pairs of answers,
answers that were only rated down, general data, and passages of the index. Then the steps run. The rows that
stay are the version, which ``pipeline.py`` puts together.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import polars as pl
from tunewheel_contracts.formats.data_quality import LabelReview
from tunewheel_contracts.formats.example_formats import CleaningSpec
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_contracts.pseudonyms import Pseudonyms

from tunewheel_curate.cleaning.languages import keep_languages
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.cleaning.tickets import clean_records
from tunewheel_curate.documents.examples import draft_documents, drop_repetition
from tunewheel_curate.duplicates.questions import (
    drop_exact_duplicates,
    drop_near_duplicates,
    find_near_pairs,
    settle_near_conflicts,
)
from tunewheel_curate.duplicates.semantics import settle_semantic_duplicates
from tunewheel_curate.evaluation.contamination import drop_contaminated
from tunewheel_curate.evaluation.leakage import ANSWER_IN_TRAINING, find_answers
from tunewheel_curate.examples.answer_shape import words_of
from tunewheel_curate.examples.formatting import drop_long, with_key, with_messages, with_name
from tunewheel_curate.examples.output_validation import check_rules, normalize, validate_outputs
from tunewheel_curate.examples.templates import check_conversations
from tunewheel_curate.holdout.memory import LEAK_SIMILARITY, drop_related, drop_remembered, remember
from tunewheel_curate.holdout.splitting import join_conversations, split_rows
from tunewheel_curate.labels.conflicts import drop_conflicts
from tunewheel_curate.labels.review import answer_conflicting, conflicting, off_schema, suspected
from tunewheel_curate.labels.suspects import find_suspects
from tunewheel_curate.passages.adding import add_passages
from tunewheel_curate.passages.choosing import draft_passages, drop_control_tokens, drop_personal_data
from tunewheel_curate.preferences import (
    TAKEN,
    check_pairs,
    draft_negatives,
    draft_pairs,
    drop_accepted,
    keep_trained,
    take_answers,
)
from tunewheel_curate.quarantine.rules import drop_injected, limit_origins, set_aside
from tunewheel_curate.replay.mixing import choose_replay, draft_replay
from tunewheel_curate.stage import DOCUMENT, RATED_DOWN, TRAIN, Stage, drafted, keep_all, without_texts
from tunewheel_curate.step import Context, Draft, Kind, Lane, Step


def _redaction(context: Context) -> dict[str, object]:
    policy, schema = context.spec.dataset.pii, context.spec.task.output_schema
    if context.kind is Kind.DOCUMENT:
        # Sections were redacted before. A teacher may have written personal data that was not recognised
        # there. A pipeline for names would take placeholders for names.
        policy, schema = policy.model_copy(update={"named_entities": None}), None
    return {"policy": policy, "secret": context.inputs.pinned.secret, "own_words": words_of(schema)}


def _validate(records: pl.DataFrame, task: TaskSpec, cleaning: CleaningSpec) -> Stage:
    stage = validate_outputs(records, task, cleaning)
    return replace(stage, review=(off_schema(records, stage, task),))


def _settle_conflicts(records: pl.DataFrame, task: TaskSpec, released: Collection[str]) -> Stage:
    stage = drop_conflicts(records, released)
    return replace(stage, review=(conflicting(records, stage), answer_conflicting(stage.kept, task)))


def _doubt_labels(records: pl.DataFrame, policy: LabelReview) -> Stage:
    suspects = find_suspects(records, policy)
    review = (suspected(records, suspects.found),)
    return replace(keep_all("suspects", records), suspects=suspects, review=review)


def _trained(context: Context) -> dict[str, object]:
    trained = context.answers.rows.filter(pl.col("side") == TRAIN)["record_id"].to_list()
    return {"trained": context.compared.members([trained])[0]}


TRUST = "trust attributes"
BEST = f"{TRUST} output occurred_at published_at"
"""The columns by which the best of several records is chosen."""
WAITS = "kind trust principal published_at input output"
"""The columns of the list of quarantined records."""
LISTED = f"kind source_id title input output validated_by validated_at {TRUST} occurred_at published_at"
"""The columns of the review list."""
TALK = "title input history output"
ASKED = (Kind.ANSWER, Kind.NEGATIVE)
"""The kinds that people wrote."""
WRITTEN = (Kind.ANSWER, Kind.DOCUMENT, Kind.NEGATIVE)
"""The kinds that come with texts of their own."""

DRAFTS: dict[Kind, Draft] = {
    Kind.ANSWER: lambda c: Lane(
        drafted(c.selected.usable.kept), [without_texts(c.selected.live), without_texts(c.selected.usable)]
    ),
    Kind.DOCUMENT: lambda c: draft_documents(c.selected.set_aside(DOCUMENT), c.spec, c.inputs.pinned),
    Kind.PAIR: lambda c: draft_pairs(c.selected.distinct),
    Kind.NEGATIVE: lambda c: draft_negatives(c.selected.set_aside(RATED_DOWN)),
    Kind.REPLAY: lambda c: draft_replay(c.inputs.replay)
    if c.inputs.replay is not None and c.spec.dataset.replay is not None else None,
    Kind.PASSAGE: lambda c: draft_passages(
        c.inputs.index.index, c.selected.live.kept["record_id"], c.inputs.judged.refused
    )
    if c.inputs.index is not None and c.spec.trains_with_passages else None,
}  # fmt: skip

ROW_STEPS = (
    Step(
        "normalization", normalize, "title input history output rejected_output",
        writes="title input output rejected_output", kinds=ASKED,
        options=lambda c: {
            "task": c.spec.task, "min_characters": c.spec.dataset.min_characters,
            "max_tokens": c.spec.dataset.max_tokens,
        },
    ),
    Step(
        "cleaning", clean_records, f"kind {TALK}", writes=f"{TALK} flags cut", kinds=ASKED,
        options=lambda c: {
            "policy": c.spec.dataset.cleaning, "free_text": c.spec.task.output_schema is None,
            "min_characters": c.spec.dataset.min_characters,
        },
    ),
    Step(
        "language", keep_languages, "input", kinds=ASKED,
        options=lambda c: {"languages": c.spec.dataset.languages} if c.spec.dataset.languages else None,
    ),
    Step(  # a text must have its final form before personal data can be found in it
        "redaction", redact_records, f"project group {TALK} rejected_output cut",
        writes=f"{TALK} rejected_output cut", kinds=WRITTEN, options=_redaction,
    ),
    Step(
        "output_validation", _validate, LISTED, writes="label",
        options=lambda c: {"task": c.spec.task, "cleaning": c.spec.dataset.cleaning},
    ),
    Step(
        "output_rules", check_rules, TALK,
        options=lambda c: {"rules": c.spec.task.output_rules} if c.spec.task.output_rules else None,
    ),
    Step(
        "length", drop_long, TALK, kinds=WRITTEN,
        options=lambda c: {
            "system_prompt": c.system_prompt, "max_tokens": c.spec.dataset.max_tokens,
            "tokens": c.inputs.pinned.tokens,
        },
    ),
    Step("key", with_key, "title input history", writes="key", kinds=ASKED),
    Step(
        "name", with_name, TALK, writes="example_id", kinds=WRITTEN,
        options=lambda c: {
            "system_prompt": c.system_prompt, "noun": "neg" if c.kind is Kind.NEGATIVE else "ex",
        },
    ),
)  # fmt: skip
"""Steps that judge each row by itself. The next build does not run them again on a row that passed them
(``outcomes.py``)."""

CORPUS_STEPS = (
    Step(
        "quarantine", set_aside, f"{WAITS} title history document instead_of", kinds=WRITTEN,
        options=lambda c: {
            "corrections": c.spec.dataset.corrections, "injections": c.spec.dataset.injections,
            "min_trust": c.spec.dataset.min_trust if c.kind is Kind.ANSWER else "unverified",
            "released": c.inputs.judged.released, "refused": c.inputs.judged.refused,
        },
    ),
    Step(  # checks a sample first
        "template", check_conversations, TALK, kinds=WRITTEN,
        options=lambda c: {"tokenizer": c.inputs.pinned.tokens.tokenizer, "system_prompt": c.system_prompt}
        if c.inputs.pinned.tokens.tokenizer is not None else None,
    ),
    Step(
        "conflicts", _settle_conflicts, f"key label group principal {LISTED}", held=True,
        options=lambda c: {"task": c.spec.task, "released": c.inputs.judged.released},
    ),
    Step("exact_duplicates", drop_exact_duplicates, f"key {BEST}"),
    Step(
        "near_pairs", find_near_pairs, "key",
        options=lambda c: {
            "minimum": min(c.spec.dataset.near_duplicate_threshold, LEAK_SIMILARITY), "earlier": c.earlier,
        },
    ),
    Step(
        "near_conflicts", settle_near_conflicts, f"label {LISTED}", paired=True,
        options=lambda c: {"task": c.spec.task, "threshold": c.spec.dataset.near_duplicate_threshold},
    ),
    Step(
        "near_duplicates", drop_near_duplicates, f"key label {BEST}", paired=True,
        options=lambda c: {"task": c.spec.task, "threshold": c.spec.dataset.near_duplicate_threshold},
    ),
    Step(
        "semantic_duplicates", settle_semantic_duplicates, f"key label {BEST}", paired=True,
        options=lambda c: {"policy": c.spec.dataset.semantic_duplicates, "task": c.spec.task}
        if c.spec.dataset.semantic_duplicates.enabled else None,
    ),
    Step(
        "flood", limit_origins, f"{WAITS} group label",
        options=lambda c: {
            "limits": c.spec.dataset.limits, "held_out": c.spec.dataset.holdout_fraction,
            "released": c.inputs.judged.released,
        },
    ),
    Step(
        "conversations", join_conversations, "", paired=True,
        options=lambda c: {"received": c.selected.live.kept},
    ),
    Step("suspects", _doubt_labels, f"key label {LISTED}",
        options=lambda c: {"policy": c.spec.dataset.label_review},
    ),
    Step("repetition", drop_repetition, "input output format", kinds=(Kind.DOCUMENT,)),
)  # fmt: skip
"""Steps that compare rows with each other."""

EXAMPLE_STEPS = (
    Step(
        "answers", take_answers, "", writes=" ".join(TAKEN), kinds=(Kind.PAIR,),
        options=lambda c: {"answers": c.answers.held},
    ),
    Step(
        "messages", with_messages, TALK, writes="messages",
        kinds=(Kind.ANSWER, Kind.DOCUMENT, Kind.PAIR, Kind.NEGATIVE),
        options=lambda c: {"system_prompt": c.system_prompt},
    ),
    Step(
        "split", split_rows, "example_id label group trust attributes key", writes="side", paired=True,
        options=lambda c: {
            "compared": c.compared, "memory": c.inputs.memory, "fraction": c.spec.dataset.holdout_fraction,
            "trusted": c.spec.dataset.holdout_trust,
            "names": Pseudonyms(c.spec.project, c.inputs.pinned.secret),
        },
    ),
    Step(
        "holdout", drop_remembered, "messages", kinds=(Kind.DOCUMENT,),
        options=lambda c: {"memory": c.inputs.memory},
    ),
    Step(
        "contamination", drop_contaminated, "messages side", kinds=(Kind.ANSWER, Kind.DOCUMENT),
        options=lambda c: {"search": c.search} | (
            {"holdout": c.holdout, "drops": c.spec.dataset.contamination.action == "drop"}
            if c.kind is Kind.ANSWER else {}
        ),
    ),
    Step(
        "memory", remember, "side",
        options=lambda c: {"compared": c.compared, "memory": c.inputs.memory},
    ),
    Step("trained", keep_trained, "", kinds=(Kind.PAIR,), options=_trained),
    Step(
        "related", drop_related, "kind source_id group key", kinds=(Kind.NEGATIVE,),
        options=lambda c: {"memory": c.answers.memory},
    ),
    Step(
        "personal_data", drop_personal_data, "input", kinds=(Kind.PASSAGE,),
        options=lambda c: {"policy": c.spec.dataset.pii, "project": c.spec.project}
        if c.spec.dataset.pii.action != "keep" else None,
    ),
    Step(
        "injections", drop_injected, "input document", kinds=(Kind.PASSAGE,),
        options=lambda c: {"released": c.inputs.judged.released}
        if c.spec.dataset.injections != "keep" else None,
    ),
    Step(
        "control_tokens", drop_control_tokens, "messages", kinds=(Kind.PASSAGE,),
        options=lambda c: {"tokenizer": c.inputs.pinned.tokens.tokenizer}
        if c.inputs.pinned.tokens.tokenizer is not None else None,
    ),
    Step(
        "remembered", drop_remembered, "messages", kinds=(Kind.PASSAGE,),
        options=lambda c: {"memory": c.answers.memory},
    ),
    Step(
        "leaks", drop_contaminated, "messages side", kinds=(Kind.PAIR, Kind.NEGATIVE, Kind.PASSAGE),
        options=lambda c: {"search": c.search},
    ),
    Step(
        "accepted", drop_accepted, "messages example_id", kinds=(Kind.NEGATIVE,),
        options=lambda c: {"trained": c.train["messages"]},
    ),
    Step(
        "pairs", check_pairs, "messages rejected_output", writes="example_id", kinds=(Kind.PAIR,),
        options=lambda c: {"max_tokens": c.spec.dataset.max_tokens, "tokens": c.inputs.pinned.tokens},
    ),
    Step(
        "replay", choose_replay, "messages", kinds=(Kind.REPLAY,),
        options=lambda c: {
            "share": c.spec.dataset.replay.share, "train": c.train, "holdout": c.holdout,
            "max_tokens": c.spec.dataset.max_tokens, "tokens": c.inputs.pinned.tokens,
            "memory": c.answers.memory, "search": c.search,
        } if c.spec.dataset.replay is not None else None,
    ),
    Step(
        "answers_in_training", find_answers, "messages side", writes=ANSWER_IN_TRAINING,
        options=lambda c: {"train": c.train},
    ),
    Step(  # the last step, because every comparison must see the texts as people wrote them
        "passages", add_passages, "messages example_id side format document heading rejected_output",
        writes="messages passages gold found", kinds=(Kind.ANSWER, Kind.DOCUMENT, Kind.PAIR, Kind.NEGATIVE),
        options=lambda c: {
            "opened": c.inputs.index, "allowed": frozenset(c.lanes[Kind.PASSAGE].rows["record_id"]),
            "retrieval": c.spec.retrieval, "max_tokens": c.spec.dataset.max_tokens,
            "tokens": c.inputs.pinned.tokens, "with_rejected": c.kind is Kind.PAIR,
        } if Kind.PASSAGE in c.lanes else None,
    ),
)  # fmt: skip
"""Steps that decide which rows train, and with which prompts."""

LATER_STEPS = (*CORPUS_STEPS, *EXAMPLE_STEPS)
STEPS = (*ROW_STEPS, *LATER_STEPS)
