"""The passages found for the held-out questions of one evaluation, and the prompts made with them."""

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
    """The search result for one question."""

    hits: tuple[Hit, ...] = ()
    """The hits whose passages go into the prompt."""
    document: str | None = None
    """The document that answers the question; None: it is not known."""
    rank: int | None = None
    """The rank, from 1, of that document's first passage in the search result; None: it was not found."""
    change: Change | None = None
    """How that document changed since the answer was written; None: it did not change, or it is not known."""

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(hit.passage.searched for hit in self.hits)


@dataclass(frozen=True)
class LookedUp:
    """The search results of all held-out examples."""

    index_id: str
    spec: RetrievalSpec
    found: Mapping[str, Found] = field(default_factory=dict[str, Found])
    reason: str | None = None
    """Why no passages were looked up; None: they were."""
    before_id: str | None = None
    """The index version at the time when the answers were written; None: it is not known or was deleted."""
    documents_changed: int = 0

    @property
    def serves(self) -> bool:
        """Return whether a served request gets passages by default. Then the judged prompts have passages
        too."""
        return self.spec.default == "on"

    def asked(self, example: ChatExample, *, with_passages: bool) -> ChatExample:
        """Return ``example`` with the prompt that the gateway would make."""
        found = self.found.get(example.example_id)
        if not with_passages or found is None or not found.hits:
            return example
        return with_hits(example, self.spec, found.hits)

    def by_key(self, examples: Sequence[ChatExample], *, max_output_tokens: int) -> dict[str, WithPassages]:
        """Return the ``examples`` whose prompts have passages, by the key of the prompt with all its
        passages."""
        asked = [(self.asked(one, with_passages=True), one) for one in examples]
        return {
            example_key(one, max_output_tokens=max_output_tokens): WithPassages(
                example=plain, hits=self.found[plain.example_id].hits
            )
            for one, plain in asked
            if one is not plain
        }

    def texts(self) -> dict[str, tuple[str, ...]]:
        """Return the texts of the passages by example, for prompts that have any."""
        return {name: found.texts for name, found in self.found.items() if found.hits}

    def labelled(self, examples: Sequence[ChatExample]) -> list[int]:
        """Return the positions of the ``examples`` whose answering document is known."""
        is_labelled = [self.found.get(one.example_id, Found()).document is not None for one in examples]
        return [row for row, is_known in enumerate(is_labelled) if is_known]
