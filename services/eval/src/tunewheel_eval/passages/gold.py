"""Finds the gold passage of a held-out question: the passage that answers it, if that is known.

An example that was drafted from a document names its record. For any other example it is the passage on which
the expert's answer rests: a passage with the answer's numbers, and with more of its words than any passage of
another document has. It is searched by the answer's words, not by the question's. Otherwise the measured
quality of retrieval would depend on retrieval itself.
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
"""The gold passage must have at least this share of the answer's words."""
CANDIDATES = 20


def gold_passages(examples: Iterable[ChatExample], index: Index) -> dict[str, Passage]:
    """Return the gold passages by example id. Examples without a known one are left out."""
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
    """Return the passage with most words of ``said``, its share of the words, and the largest share among
    passages of other documents."""
    shares = [(grounding(said, passage.searched), passage) for passage in passages]
    share, best = max(shares, key=lambda one: one[0], default=(0.0, None))
    others = [one for one, passage in shares if best and passage.document_id != best.document_id]
    return best, share, max(others, default=0.0)
