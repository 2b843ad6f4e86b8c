"""Which passage a held-out question is answered by, where that is known.

An example that was drafted from a document names its record. Any other is answered by the passage that its
expert's answer rests on: which holds its numbers, and more of its words than any passage of another document.
It is looked for among the passages that share most words with the answer, not with the question: how well
questions find passages is what is to be measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_outputs.grounding import figures_in, grounding, statements
from tunewheel_outputs.texts import said_before
from tunewheel_retrieval.hits import Passage
from tunewheel_retrieval.index import Index

GROUNDED = 0.75
"""Share of an answer's words that the passage it rests on holds."""
CANDIDATES = 20


def gold_passages(examples: Iterable[ChatExample], index: Index) -> dict[str, Passage]:
    """Return the passage that each example is answered by, by its id; those where nobody can tell are not
    there."""
    of_record: defaultdict[str, list[Passage]] = defaultdict(list)
    for passage in index.rows:
        of_record[passage.record_id].append(passage)
    found: dict[str, Passage] = {}
    for example in examples:
        said = statements(example.messages[-1].content)
        drafted = [passage for record in example.record_ids for passage in of_record.get(record, ())]
        gold = _best(said, drafted)[0] if drafted else _grounding(example, said, index)
        if gold is not None:
            found[example.example_id] = gold
    return found


def _grounding(example: ChatExample, said: str, index: Index) -> Passage | None:
    if not said:
        return None
    hits = index.search(said, None, CANDIDATES)
    gold, share, second = _best(said, [hit.passage for hit in hits])
    if gold is None or share < GROUNDED or second >= share:
        return None
    given = f"{gold.searched}\n{said_before(example.messages[:-1])}"
    return gold if figures_in(said) <= figures_in(given) else None


def _best(said: str, passages: Sequence[Passage]) -> tuple[Passage | None, float, float]:
    """Return the passage that holds most of ``said``, its share, and the largest share of a passage of
    another document."""
    shares = [(grounding(said, passage.searched), passage) for passage in passages]
    share, best = max(shares, key=lambda one: one[0], default=(0.0, None))
    others = [one for one, passage in shares if best and passage.document_id != best.document_id]
    return best, share, max(others, default=0.0)
