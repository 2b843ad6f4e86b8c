"""A question is searched as in serving: by words and its vector, by words alone, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_embedding.errors import EmbeddingRefused, EndpointAway
from tunewheel_retrieval.building import build
from tunewheel_retrieval.context import fit, with_passages
from tunewheel_retrieval.index import Index
from tunewheel_retrieval.prompts import context_of, questions_of
from tunewheel_retrieval.search import (
    WhyNot,
    explain,
    floor_of,
    look_up,
    passages_for,
    vectors_of,
    why_not,
)

from retrieval.tests.conftest import Counting, document, stored

SPEC = RetrievalSpec(top_k=3, passage_tokens=16, budget_tokens=25)
QUESTION = "When does the gym open?"


@pytest.fixture
def index(embedder: Counting) -> Index:
    documents = [
        document(name, f"The {name} opens at nine and closes late.") for name in ("gym", "bar", "spa")
    ]
    return Index.open(*stored(build(documents, embedder, SPEC, project="p", config_sha256="0" * 64)))


class Picky:
    """Embeds texts of up to 30 characters; ``refuses`` names what the error of another text says."""

    dimensions = 2

    def __init__(self, name: str, *, may_be_one_text: bool = True) -> None:
        self.name, self.asked, self._may = name, list[str](), may_be_one_text

    def units(self, texts: Sequence[str]) -> Any:
        self.asked += texts
        assert all(text.strip() for text in texts)
        if any(len(text) > 30 for text in texts):
            raise EmbeddingRefused("413: too long", may_be_one_text=self._may)
        return np.array([[1.0, 0.0]] * len(texts))


def told(vectors: Sequence[Any]) -> list[Any]:
    return [one if isinstance(one, WhyNot) else list(one) for one in vectors]


def test_a_look_up_is_search_and_budget(index: Index, embedder: Counting) -> None:
    (vector,) = vectors_of(index.manifest, embedder, [QUESTION])
    assert not isinstance(vector, WhyNot)
    hits, missing = look_up(index, SPEC, [(QUESTION, vector)])
    assert (hits, missing) == (fit(index.search(QUESTION, vector, 3), budget=25), None)
    assert 0 < len(hits) < 3  # the budget counts
    assert hits[0].passage.document_id == "gym"
    assert hits[0].similarity is not None
    assert context_of(SPEC, hits) == with_passages(SPEC.template, hits)
    assert context_of(SPEC, ()) == ""


@pytest.mark.parametrize("groups", [(), ("staff",)])
def test_an_explanation_sends_what_the_look_up_sends(
    index: Index, embedder: Counting, groups: tuple[str, ...]
) -> None:
    (vector,) = vectors_of(index.manifest, embedder, [QUESTION])
    told = explain(index, SPEC, (QUESTION, vector), groups)
    sent = look_up(index, SPEC, [(QUESTION, vector)], groups)[0]
    assert tuple(one.hit for one in told if one.sent) == sent
    assert len(told) > len(sent)
    assert [one.hit.score for one in told] == sorted((one.hit.score for one in told), reverse=True)
    by_words = sorted(told, key=lambda one: one.hit.ranks[0] or 99)
    scores = [one.hit.words for one in by_words]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0
    assert all(one.passes for one in told)  # this index has no floor


def test_an_explanation_shows_what_lies_below_the_floor_and_sends_none_of_it(embedder: Counting) -> None:
    spec = RetrievalSpec(top_k=3, passage_tokens=16, budget_tokens=96, floor="calibrated")
    documents = [document("gym", "The gym opens at nine."), document("tax", "Receipts are kept.")]
    index = Index.open(*stored(build(documents, embedder, spec, project="p", config_sha256="0" * 64)))
    asked = ("the", WhyNot.AWAY)
    (found,) = explain(index, spec, asked)
    floor = floor_of(index, spec, asked)
    assert floor is not None
    assert (found.passes, found.sent) == (found.hit.fit > floor, found.hit.fit > floor)
    low = explain(index, spec, ("the zebra quarrels with parrots about syntax", WhyNot.AWAY))
    assert [(one.passes, one.sent) for one in low] == [(False, False)]


@pytest.mark.parametrize("reason", [WhyNot.EMBEDDER, WhyNot.REFUSED, WhyNot.AWAY])
def test_a_question_without_a_vector_is_searched_by_words_alone(index: Index, reason: WhyNot) -> None:
    hits, missing = look_up(index, SPEC, [(QUESTION, reason)])
    assert missing is reason
    assert hits == fit(index.search(QUESTION, None, 3), budget=25) != ()


@pytest.mark.parametrize("blank", ["", " ", "\n\u00a0"])
def test_a_blank_question_finds_nothing_and_is_not_embedded(index: Index, blank: str) -> None:
    picky = Picky(index.manifest.embedding)
    vectors = vectors_of(index.manifest, picky, [blank, "short"])
    assert told(vectors) == [WhyNot.BLANK, [1.0, 0.0]]
    assert picky.asked == ["short"]
    assert look_up(index, SPEC, [(blank, vectors[0])]) == ((), WhyNot.BLANK)
    assert passages_for(index, blank, np.ones(index.manifest.dimensions), 3) == ()
    assert vectors_of(index.manifest, picky, [blank]) == [WhyNot.BLANK]


def test_a_refused_question_has_no_vector_and_the_others_have_theirs(index: Index) -> None:
    picky = Picky(index.manifest.embedding)
    vectors = vectors_of(index.manifest, picky, ["short", "long " * 9, "short too"])
    assert told(vectors) == [[1.0, 0.0], WhyNot.REFUSED, [1.0, 0.0]]
    assert vectors_of(index.manifest, picky, ["long " * 9]) == [WhyNot.REFUSED]
    with pytest.raises(EmbeddingRefused):
        vectors_of(index.manifest, Picky(picky.name, may_be_one_text=False), ["long " * 9])


def test_another_embedder_than_that_of_the_index_is_not_asked(index: Index) -> None:
    other = Picky("another")
    assert vectors_of(index.manifest, other, [QUESTION] * 2) == [WhyNot.EMBEDDER] * 2
    assert vectors_of(index.manifest, None, [QUESTION]) == [WhyNot.AWAY]
    assert other.asked == []


def test_what_an_error_means_for_one_question() -> None:
    errors = [
        EndpointAway("no answer"), TimeoutError(), EmbeddingRefused("413"), InvalidSpec(field="a", reason="b")
    ]  # fmt: skip
    assert [why_not(error) for error in errors] == [WhyNot.AWAY] * 2 + [WhyNot.REFUSED] * 2


FLOORED = SPEC.model_copy(update={"floor": "calibrated", "budget_tokens": 100})
SOPS = {
    "boiler": "Close valve V7 before the boiler is opened.",
    "refund": "A refund is paid within five days.",
    "badge": "Lost badges are reported to the desk at gate four.",
}


@pytest.fixture
def floored(embedder: Counting) -> Index:
    documents = [document(name, text, heading=name.title()) for name, text in SOPS.items()]
    return Index.open(*stored(build(documents, embedder, FLOORED, project="p", config_sha256="0" * 64)))


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("how long until I get my refund", "refund"),
        ("I cannot find my badge any more", "badge"),
        ("V7", "boiler"),
        ("Tell me a joke about cats", None),
        ("Write a poem about autumn leaves", None),
        ("Erzähl mir einen Witz über Katzen", None),
    ],
)
@pytest.mark.parametrize("embedded", [True, False])
def test_above_the_floor_a_question_finds_its_passage_and_another_finds_none(
    floored: Index, embedder: Counting, question: str, found: str | None, embedded: bool
) -> None:
    (vector,) = vectors_of(floored.manifest, embedder, [question]) if embedded else [WhyNot.AWAY]
    hits, _ = look_up(floored, FLOORED, [(question, vector)])
    assert [hit.passage.document_id for hit in hits[:1]] == ([found] if found else [])
    assert look_up(floored, SPEC, [(question, vector)])[0] or not embedded  # no floor: the best one enters


def test_an_index_of_another_spec_has_no_floor_and_leaves_nothing_out(
    index: Index, embedder: Counting
) -> None:
    (vector,) = vectors_of(index.manifest, embedder, ["Tell me a joke about cats"])
    assert look_up(index, FLOORED, [("Tell me a joke about cats", vector)])[0]


TALK = (
    {"role": "user", "content": "Who are you?"},
    {"role": "user", "content": "How do I get a refund?"},
    {"role": "assistant", "content": "Ask the shop."},
    {"role": "user", "content": "and how many days does that take?"},
)
TALKING = RetrievalSpec(question="conversation", top_k=2)


def test_the_text_to_search_for_is_the_last_message_or_also_it_with_the_one_before() -> None:
    assert questions_of(SPEC, TALK) == ("and how many days does that take?",)
    assert questions_of(TALKING, TALK) == (
        "and how many days does that take?",
        "How do I get a refund?\nand how many days does that take?",
    )
    assert questions_of(TALKING, TALK[:1]) == ("Who are you?",)
    assert questions_of(TALKING, TALK[:3]) == (
        "How do I get a refund?", "Who are you?\nHow do I get a refund?",
    )  # fmt: skip
    assert questions_of(TALKING, ()) == questions_of(SPEC, ()) == ("",)
    assert questions_of(TALKING, (*TALK, {"role": "user", "content": None})) == ("",)


def test_a_follow_up_also_finds_what_the_question_before_found(floored: Index, embedder: Counting) -> None:
    texts = ("who decides that?", "How do I get a refund?\nwho decides that?")
    asked = list(zip(texts, vectors_of(floored.manifest, embedder, texts), strict=True))
    (alone,) = look_up(floored, TALKING.model_copy(update={"top_k": 1}), asked)[0]
    assert alone == look_up(floored, TALKING, asked[:1])[0][0]  # the last message comes first
    both = [hit.passage.document_id for hit in look_up(floored, TALKING, asked)[0]]
    assert "refund" in both
    assert len(both) == len(set(both)) == 2
    assert look_up(floored, FLOORED, asked)[0][0].passage.document_id == "refund"  # no floor is passed alone
