"""Joins rows into observations: the rows of one group, and the rows whose prompts are nearly the same.

Two prompts are nearly the same if they are equal without letter case, digits and punctuation, or if their
word bigrams have a Jaccard similarity of at least ``ALIKE``, such as one template with different names.
Instructions that most prompts share, before or after the question, are not compared.
Curate has an index for millions of texts; a holdout is small enough to compare all pairs.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_verdicts.significance import Clusters

ALIKE = 0.8
_WORD = re.compile(r"[^\W\d_]+")
_INSTRUCTION = 12
"""Fewer shared words are no instruction, and make prompts with different questions seldom alike."""
_FEW = 8
"""In fewer prompts than this, shared words may be those of one question that came several times."""
_COMMON = 200
"""A word bigram in more prompts than this is ignored: it would make every pair of prompts a candidate."""


def of_examples(examples: Sequence[ChatExample]) -> Clusters:
    """Return each example's cluster by number."""
    asked = [" ".join(m.content for m in one.messages[:-1] if m.role != "system") for one in examples]
    return clusters_of([one.group for one in examples], asked)


def of_items(items: Sequence[RegressionItem]) -> Clusters:
    """Return each regression item's cluster by number."""
    return clusters_of(list(range(len(items))), [item.prompt for item in items])


def clusters_of(groups: Sequence[Hashable], prompts: Sequence[str]) -> Clusters:
    """Return the cluster of each row. Rows of one group, and rows with nearly the same prompt, share a
    cluster. Both arguments are by row."""
    parents = list(range(len(prompts)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = row = parents[parents[row]]
        return row

    words = _without_instructions([tuple(_WORD.findall(prompt.casefold())) for prompt in prompts])
    first: dict[Hashable, int] = {}
    for row, (group, said) in enumerate(zip(groups, words, strict=True)):
        # a prompt without words, such as "?", is compared as it is
        for key in (("group", group), ("words", said or prompts[row])):
            parents[root(row)] = root(first.setdefault(key, row))
    for one, other in _alike([frozenset(pairwise(said)) for said in words]):
        parents[root(one)] = root(other)
    return np.unique([root(row) for row in range(len(prompts))], return_inverse=True)[1].astype(np.int64)


def _without_instructions(prompts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the words of each prompt without the first and the last words that most prompts share."""
    before = _shared(prompts)
    after = _shared([prompt[::-1] for prompt in prompts])
    if len(before) + len(after) < _INSTRUCTION:
        return list(prompts)
    stripped: list[tuple[str, ...]] = []
    for prompt in prompts:
        start = len(before) if prompt[: len(before)] == before else 0
        end = len(prompt) - (len(after) if prompt[::-1][: len(after)] == after else 0)
        stripped.append(prompt[start:end] or prompt)
    return stripped


def _shared(prompts: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the longest beginning that more than half of the prompts share; of a few prompts none."""
    shared: list[str] = []
    rest = list(prompts)
    while len(prompts) >= _FEW:
        place = len(shared)
        rest = [prompt for prompt in rest if len(prompt) > place]
        (word, count), *_ = Counter(prompt[place] for prompt in rest).most_common(1) or [("", 0)]
        if 2 * count <= len(prompts):
            break
        shared.append(word)
        rest = [prompt for prompt in rest if prompt[place] == word]
    return tuple(shared)


def _alike(shingles: Sequence[frozenset[Hashable]]) -> list[tuple[int, int]]:
    holders: dict[Hashable, list[int]] = defaultdict(list)
    for row, own in enumerate(shingles):
        for shingle in own:
            holders[shingle].append(row)
    alike: list[tuple[int, int]] = []
    for row, own in enumerate(shingles):
        near = {other for s in own if len(holders[s]) <= _COMMON for other in holders[s] if other < row}
        for other in near:
            shared = len(own & shingles[other])
            if shared >= ALIKE * (len(own) + len(shingles[other]) - shared):
                alike.append((row, other))
    return alike
