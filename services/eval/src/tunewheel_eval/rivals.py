"""Says whether tuning was needed: what cheap rivals of the candidate reach on the same held-out rows.

They are a linear model on TF-IDF (Joachims, "Text categorization with Support Vector Machines", ECML 1998),
fitted to the version's training rows where the answer is a label, and the base with the best prompt that the
project names. The candidate itself in the other mode stands beside them: without the constraint of the output
schema, or with it. They count in no criterion.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import polars as pl
import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage, ExampleFormat
from tunewheel_contracts.formats.scorecard import Rival
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.artifacts import read_rows
from tunewheel_eval.metrics import LABELS

log = structlog.get_logger(__name__)
LINEAR = "TF-IDF and a linear model"
BEST_PROMPT = "the base with the best prompt"
UNCONSTRAINED = "the candidate without the output schema's constraint"
CONSTRAINED = "the candidate constrained by the output schema"
MOST_ROWS = 20_000
"""The linear model is fitted to so many training rows, evenly spread: they take a few seconds."""


async def linear_on(store: ObjectStore, train: ArtifactRef, holdout: Sequence[ChatExample]) -> Rival | None:
    """Return what ``linear_rival`` reaches. The figure is kept by training file and held-out questions: a
    further run on a version, or a run that is judged again, reads no training row."""
    asked = sorted((_question_of(one), one.label) for one in holdout if one.label is not None)
    path = f"rivals/{content_sha256([train.sha256, asked])}.json"
    if not asked:
        return None
    if (kept := await store.document(path, Rival)) is not None:
        return kept
    found = await asyncio.to_thread(linear_rival, *await read_labelled(store, train), holdout)
    if found is not None:
        await store.first(path, found.model_dump_json().encode())
    return found


async def read_labelled(store: ObjectStore, ref: ArtifactRef) -> tuple[list[str], list[str]]:
    """Return question and label of the training rows that have a label; of many, every n-th.

    A missing file gives none: the rivals decide nothing. Raises TransientError: the store is away.
    """
    try:
        frame = await read_rows(store, ref, "dataset.train")
    except InvalidEvent as error:
        log.warning("no_linear_model", reason=str(error))
        return [], []
    if "label" not in frame.columns:
        return [], []
    rows = frame.filter(pl.col("label").is_not_null())
    if "format" in rows.columns:
        rows = rows.filter(pl.col("format") == ExampleFormat.ANSWER.value)
    rows = rows.gather_every(-(-max(1, rows.height) // MOST_ROWS))
    questions = [
        _question([(one["role"], one["content"]) for one in messages])
        for messages in rows["messages"].to_list()
    ]
    return questions, rows["label"].to_list()


def linear_rival(
    questions: Sequence[str], labels: Sequence[str], holdout: Sequence[ChatExample]
) -> Rival | None:
    """Fit the linear model and ask it the held-out questions; None: there are no labels to tell apart."""
    asked = [one for one in holdout if one.label is not None]
    if len(set(labels)) < 2 or not asked:
        return None
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    began = time.monotonic()
    terms = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), max_features=200_000, token_pattern=r"\w+")
    try:
        model = LinearSVC(random_state=0).fit(terms.fit_transform(questions), labels)
    except ValueError as error:  # such as questions without any word
        log.warning("no_linear_model", reason=str(error))
        return None
    said = model.predict(terms.transform([_question_of(one) for one in asked]))
    right = sum(label == one.label for label, one in zip(said, asked, strict=True))
    return Rival(
        name=LINEAR, metrics={LABELS: right / len(asked)}, rows=len(asked), seconds=time.monotonic() - began
    )


def _question_of(example: ChatExample) -> str:
    return _question([(one.role, one.content) for one in example.messages])


def _question(messages: Sequence[tuple[str, str]]) -> str:
    return "\n".join(content for role, content in messages[:-1] if role != "system")


def with_prompt(examples: Sequence[ChatExample], prompt: str | None) -> tuple[ChatExample, ...]:
    """Return the held-out prompts with another system prompt; none if there is no ``prompt``."""
    if prompt is None:
        return ()
    system = ChatMessage(role="system", content=prompt)
    return tuple(
        one.model_copy(update={"messages": (system, *(m for m in one.messages if m.role != "system"))})
        for one in examples
    )
