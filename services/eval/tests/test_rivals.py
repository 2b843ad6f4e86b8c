"""What cheap rivals reach: a linear model on TF-IDF."""

from __future__ import annotations

import io

import polars as pl
import pytest
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ChatExample, ExampleFormat
from tunewheel_eval.rivals import LINEAR, linear_on, linear_rival, read_labelled, with_prompt
from tunewheel_runtime.store import ObjectStore

QUESTIONS = {
    "delivery": "when does my parcel number {} arrive",
    "billing": "why is invoice number {} so high",
}


def rows(examples: tuple[ChatExample, ...], count: int, **changes: object) -> list[ChatExample]:
    """Return so many questions of each label."""
    system, user, answer = examples[0].messages
    return [
        examples[0].model_copy(
            update={
                "example_id": f"{label}-{number}",
                "label": label,
                "messages": (system, user.model_copy(update={"content": asked.format(number)}), answer),
            }
            | changes
        )
        for label, asked in QUESTIONS.items()
        for number in range(count)
    ]


async def stored(store: ObjectStore, examples: list[ChatExample]) -> ArtifactRef:
    written = io.BytesIO()
    pl.DataFrame([one.model_dump(mode="json") for one in examples]).write_parquet(written)
    return await store.put("train.parquet", written.getvalue())


async def test_a_linear_model_learns_labels_that_words_tell(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    passages = rows(examples, 2, format=ExampleFormat.CHUNK, label="passage")
    questions, labels = await read_labelled(store, await stored(store, [*rows(examples, 8), *passages]))
    assert set(labels) == {"delivery", "billing"}
    assert "help desk" not in questions[0]  # the system prompt is the same for all
    holdout = [*rows(examples, 20)[8:20], *rows(examples, 1, label=None)]
    rival = linear_rival(questions, labels, holdout)
    assert rival is not None
    assert (rival.name, rival.rows, rival.metrics) == (LINEAR, 12, {"label_accuracy": 1.0})
    assert rival.against({"label_accuracy": 0.84}) == f"{LINEAR} gets 1.00 of 0.84 (label_accuracy)"
    assert rival.against({"rouge_l": 0.5}) == f"{LINEAR} gets 1.00 (label_accuracy)"
    assert rival.model_copy(update={"metrics": {}}).against({"rouge_l": 0.5}) == f"{LINEAR} gets no figure"


async def test_training_rows_are_read_once_for_the_same_questions(
    store: ObjectStore, examples: tuple[ChatExample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, holdout = await stored(store, rows(examples, 8)), rows(examples, 20)[8:20]
    reads, get = list[str](), store.get

    async def counted(ref: ArtifactRef) -> bytes:
        reads.append(ref.path)
        return await get(ref)

    monkeypatch.setattr(store, "get", counted)
    first = await linear_on(store, train, holdout)
    assert first is not None
    assert await linear_on(store, train, holdout[::-1]) == first
    assert reads == [train.path]
    fewer = await linear_on(store, train, holdout[1:])
    assert fewer is not None
    assert (fewer.rows, len(reads)) == (11, 2)
    assert await linear_on(store, train, rows(examples, 2, label=None)) is None
    assert len(reads) == 2


async def test_where_nothing_can_be_learnt_there_is_no_linear_model(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    held = rows(examples, 2)
    assert linear_rival(["a", "b"], ["same", "same"], held) is None
    assert linear_rival(["?", "!"], ["one", "other"], held) is None
    assert linear_rival(["a", "b"], ["one", "other"], rows(examples, 2, label=None)) is None
    gone = (await stored(store, held)).model_copy(update={"path": "elsewhere.parquet"})
    assert await read_labelled(store, gone) == ([], [])
    damaged = await store.put("damaged.parquet", b"no parquet")
    assert await read_labelled(store, damaged) == ([], [])


@pytest.mark.parametrize("prompt", [None, "Answer with one word."])
def test_another_prompt_replaces_the_system_message_alone(
    prompt: str | None, examples: tuple[ChatExample, ...]
) -> None:
    found = with_prompt(examples, prompt)
    assert [one.messages[0].content for one in found] == [prompt] * (6 if prompt else 0)
    assert all(one.messages[1:] == other.messages[1:] for one, other in zip(found, examples, strict=False))
