"""What a person sees beside a question that needs an answer: similar questions with the answers of experts,
and whether the model's own answer may be shown."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import log, sqrt
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.events.evaluation import ComparisonsRequested
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.label_prompts import LabelPrompt, LabelPrompts
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.principal import Trust
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.control.dataset_files import DatasetFiles, erased_of, records_of
from tunewheel_console.label_queue import LabelQueue
from tunewheel_console.project import Project
from tunewheel_console.queues import Asked

if TYPE_CHECKING:
    import polars as pl

SIMILAR = 5
"""How many similar questions are shown."""
LEAST_SIMILAR = 0.1
ROWS = 5_000
"""How many rows of a dataset version are compared with a question."""
COMPARED_WORDS = 200
"""Questions are the same if their first words are: a file of prompts holds no more than their beginning."""


def question_of(messages: Sequence[ChatMessage]) -> str:
    """Return the last question of a conversation."""
    return next((one.content for one in reversed(messages) if one.role == "user"), "")


def nearest(question: str, texts: Sequence[str]) -> list[tuple[int, float]]:
    """Return the places of ``texts`` with their cosine similarity to ``question``, 0 to 1, the most similar
    first. Words are weighted by their rarity among ``texts``."""
    from tunewheel_outputs.texts import words_of

    counts = [Counter(words_of(text)) for text in (question, *texts)]
    found_in = Counter(word for one in counts for word in one)
    weight = {word: log(1 + len(counts) / number) for word, number in found_in.items()}
    vectors = [{word: number * weight[word] for word, number in one.items()} for one in counts]
    asked, *others = vectors

    def length(vector: Mapping[str, float]) -> float:
        return sqrt(sum(value * value for value in vector.values())) or 1.0

    fits = [
        sum(value * other.get(word, 0.0) for word, value in asked.items()) / (length(asked) * length(other))
        for other in others
    ]
    return sorted(enumerate(fits), key=lambda one: -one[1])


async def similar_answers(
    queue: LabelQueue, item: LabelPrompt, project: Project, files: DatasetFiles
) -> list[dict[str, Any]]:
    """Return the questions most like that of ``item``, with the answers that people gave to them in this
    queue or that experts validated in the newest dataset version. Held-out rows are not among them: what a
    model is judged by is copied nowhere. Raises TransientError: the store is away."""
    given = project.labels.given
    known = [
        {"question": question_of(one.messages), "answer": given[one.completion_id], "from": "this queue"}
        for one in queue.items
        if given.get(one.completion_id) and not one.is_erased and one.completion_id != item.completion_id
    ]
    newest = max(project.datasets.values(), key=lambda one: (one.time, one.id), default=None)
    with suppress(Refused):  # an erasure deleted the rows
        if newest is not None:
            version = await files.open(project, newest.data.dataset_id)
            frame = await files.frame(version, "train")
            known += await asyncio.to_thread(_validated, frame, erased_of(version))
    asked = question_of(item.messages)
    order = await asyncio.to_thread(nearest, asked, [str(one["question"]) for one in known])
    return [
        known[place] | {"similarity": round(fit, 2)} for place, fit in order[:SIMILAR] if fit >= LEAST_SIMILAR
    ]


def _validated(frame: pl.DataFrame, erased: frozenset[str]) -> list[dict[str, Any]]:
    import polars as pl

    rows = frame.filter(pl.col("trust") == Trust.EXPERT.value).head(ROWS).iter_rows(named=True)
    found = list[dict[str, Any]]()
    for row in rows:
        turns = [one["content"] for one in row["messages"] if one["role"] != "system"]
        if len(turns) > 1 and erased.isdisjoint(records_of(row)):
            found.append({"question": turns[-2], "answer": turns[-1], "from": "the dataset"})
    return found


async def is_compared_blind(item: LabelPrompt, waiting: Iterable[Asked], store: ObjectStore) -> bool:
    """Return whether people compare answers to the question of ``item`` at present, without knowing whose
    they are: the model's own answer beside the question would tell a side. ``waiting``: the requests to
    compare. If the pairs cannot be read, nobody knows their questions, and every answer might tell a side."""
    for request in waiting:
        if (
            isinstance(request.data, ComparisonsRequested)
            and item.completion_id in request.data.completion_ids
        ):
            return True
        try:
            questions = await _questions_of(request, store)
        except InvalidEvent:
            return True
        if (item.completion_id, "") in questions or ("", _alike(item.messages)) in questions:
            return True
    return False


async def _questions_of(request: Envelope[Any], store: ObjectStore) -> set[tuple[str, str]]:
    """Return the ids and the questions of the pairs of ``request``."""
    asked = request.data
    is_trial = isinstance(asked, ComparisonsRequested)
    paths = asked.pairs if is_trial else [asked.review_set.path] if asked.review_set else []
    found = set[tuple[str, str]]()
    for path in paths:
        if (data := await store.read(path)) is None:
            continue
        for one in decode_data(LabelPrompts if is_trial else ReviewSet, data).items:
            name = one.completion_id if isinstance(one, LabelPrompt) else one.example_id
            found |= {(name, ""), ("", _alike(one.messages))} if one.messages else {(name, "")}
    return found


def _alike(messages: Sequence[ChatMessage]) -> str:
    from tunewheel_outputs.texts import words_of

    return " ".join(words_of(question_of(messages))[:COMPARED_WORDS])
