from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.metric import Corpus, Metric, Row, ScoreRow
from tunewheel_outputs.parsing import Unparsed, parse

Path = tuple[str, ...]


def _scorer(task: TaskSpec, corpus: Corpus) -> ScoreRow:
    return _score


def _score(row: Row) -> float | None:
    try:
        expected = dict(_lists(parse(row.expected)))
    except Unparsed:
        return None
    if not expected:
        return None
    try:
        said = dict(_lists(parse(row.output)))
    except Unparsed:
        return 0.0
    return sum(_f1(said.get(path), wanted) for path, wanted in expected.items()) / len(expected)


def _lists(value: Any, path: Path = ()) -> Iterator[tuple[Path, Counter[str]]]:
    """Yield the lists in ``value`` that are not inside another list, as counts of their items."""
    if isinstance(value, list):
        yield path, Counter(map(_spelt, cast("list[Any]", value)))
    elif isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _lists(inner, (*path, key))


def _spelt(item: Any) -> str:
    """Return the same text for values that JSON Schema treats as equal, such as 1 and 1.0."""
    return json.dumps(_whole(item), sort_keys=True)


def _whole(item: Any) -> Any:
    if isinstance(item, float) and item.is_integer():
        return int(item)
    if isinstance(item, list):
        return [_whole(one) for one in cast("list[Any]", item)]
    if isinstance(item, dict):
        return {key: _whole(one) for key, one in cast("dict[str, Any]", item).items()}
    return item


def _f1(said: Counter[str] | None, wanted: Counter[str]) -> float:
    if said is None:
        return 0.0
    total = said.total() + wanted.total()
    return 2 * (said & wanted).total() / total if total else 1.0


METRIC = Metric(
    name="set_match",
    about="F1 of the items of the expert's lists, whatever their order. Rows whose expert gives no list do "
    "not count.",
    unit="fraction",
    lacks=lambda task: None if task.output_schema is not None else "output_schema",
    scorer=_scorer,
)
