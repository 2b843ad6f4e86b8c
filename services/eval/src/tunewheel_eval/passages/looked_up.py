"""What was looked up for the held-out questions of one evaluation, and the prompts that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_retrieval.hits import Hit

from tunewheel_eval.job import WithPassages
from tunewheel_eval.measurement import example_key
from tunewheel_eval.passages.staleness import Change
from tunewheel_eval.prompts import with_hits


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one question."""

    hits: tuple[Hit, ...] = ()
    """Whose passages a prompt is given."""
    document: str | None = None
    """The document that answers the question; None: nobody can tell which does."""
    rank: int | None = None
    """Place of that document's first passage in the index's ranking, from 1; None: it was not found."""
    change: Change | None = None
    """What became of that document since the answer was written; None: nothing, or nobody can tell."""

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(hit.passage.searched for hit in self.hits)


@dataclass(frozen=True)
class LookedUp:
    """By the id of each held-out example."""

    index_id: str
    spec: RetrievalSpec
    found: Mapping[str, Found] = field(default_factory=dict[str, Found])
    reason: str | None = None
    """Why nothing was looked up."""
    before_id: str | None = None
    """The index version that the answers were written by; None: it is not known, or not there any more."""
    documents_changed: int = 0

    @property
    def serves(self) -> bool:
        """Whether a request that does not say is given passages, and so are the prompts that are judged."""
        return self.spec.default == "on"

    def asked(self, example: ChatExample, *, with_passages: bool) -> ChatExample:
        """Return ``example`` as a model is asked it: made as the gateway makes its prompts."""
        found = self.found.get(example.example_id)
        if not with_passages or found is None or not found.hits:
            return example
        return with_hits(example, self.spec, found.hits)

    def by_key(self, examples: Sequence[ChatExample], *, max_output_tokens: int) -> dict[str, WithPassages]:
        """Return those of ``examples`` whose prompts have passages, by the key of the prompt with all of
        them."""
        asked = [(self.asked(one, with_passages=True), one) for one in examples]
        return {
            example_key(one, max_output_tokens=max_output_tokens): WithPassages(
                example=plain, hits=self.found[plain.example_id].hits
            )
            for one, plain in asked
            if one is not plain
        }

    def texts(self) -> dict[str, tuple[str, ...]]:
        """Return the passages of each prompt that has any, as texts."""
        return {name: found.texts for name, found in self.found.items() if found.hits}

    def labelled(self, examples: Sequence[ChatExample]) -> list[int]:
        """Return the rows of ``examples`` whose document is known."""
        known = [self.found.get(one.example_id, Found()).document is not None for one in examples]
        return [row for row, is_known in enumerate(known) if is_known]
