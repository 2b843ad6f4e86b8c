"""Counts the traffic that an alarm was about, by the model that answered.

The answering model separates the traffic before and after a turn. So no clock is needed, and a late item is
counted correctly. While a candidate is in canary, its answers and those that production gives beside it are
also counted for themselves: they are of the same hours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.serving import RouteRole

State = dict[str, dict[str, dict[str, float]]]
"""JSON: figures by cluster, model and name. A cluster's key is the names of the alarms near a question,
joined by blanks. ``ALL`` has the whole traffic."""
ALL = ""
CLUSTERS_KEPT = 16
MODELS_KEPT = 8
REMEMBERED = 2_000
"""After so many questions a model's counts of the whole traffic are halved, so that they describe the last
few thousand."""
FIGURES: tuple[str, ...] = (
    "questions",
    "measured",
    "novel",
    "judged",
    "invalid",
    "rated",
    "down",
    "labelled",
    "disagree",
)


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of some traffic. Each rate is a count divided by its own total."""

    questions: float = 0.0
    measured: float = 0.0
    """Questions that were compared with a reference; ``novel`` of them are novel."""
    novel: float = 0.0
    judged: float = 0.0
    """Answers to the project's own prompt whose form was checked; ``invalid`` of them are invalid."""
    invalid: float = 0.0
    rated: float = 0.0
    down: float = 0.0
    labelled: float = 0.0
    """Corrections with a label; ``disagree`` of them have another label than the answer."""
    disagree: float = 0.0


def fresh() -> State:
    """Return the initial state of a project."""
    return {}


def in_canary(model_id: str) -> str:
    """Return the name under which a candidate's answers in canary are counted."""
    return f"canary {model_id}"


def beside(model_id: str) -> str:
    """Return the name under which production's answers during a candidate's canary are counted."""
    return f"beside {model_id}"


def see(state: State, item: InferenceScored, candidates: Collection[str] = ()) -> None:
    """Count one completion or rating of production, or of one of the ``candidates``, which are in canary.
    Copies, pinned requests and failures do not count."""
    if item.pinned or item.shadow_of or item.outcome != "answered":
        return
    models: tuple[str, ...] = ()
    if item.role is RouteRole.PRODUCTION:
        models = (item.model_id, *map(beside, candidates))
    elif item.role is RouteRole.CANARY and item.model_id in candidates:
        models = (in_canary(item.model_id),)
    for key in ((ALL, " ".join(sorted(item.near))) if item.near else (ALL,)) if models else ():
        for model in models:
            counts = _row(_row(state, key, CLUSTERS_KEPT), model, MODELS_KEPT)
            (_rating if item.of == "rating" else _completion)(counts, item)
            if key == ALL and counts.get("questions", 0) >= REMEMBERED:
                counts.update({name: value / 2 for name, value in counts.items()})


def alarmed(state: State, model_id: str) -> None:
    """Reset the counts of the whole traffic of ``model_id``: an alarm without a cluster is about the traffic
    from now on."""
    state.get(ALL, {}).pop(model_id, None)


def counted(state: State, alarm_ids: Iterable[str], model_ids: Iterable[str]) -> Counts:
    """Return the counts of questions near any of the alarms, each question once. Without alarms: of all
    questions."""
    wanted, models = set(alarm_ids), set(model_ids)
    total: dict[str, float] = dict.fromkeys(FIGURES, 0.0)
    for key, by_model in state.items():
        if wanted & set(key.split()) if wanted else key == ALL:
            for name, counts in by_model.items():
                if name in models:
                    for figure, value in counts.items():
                        total[figure] += value
    return Counts(**total)


def _row(table: dict[str, dict[str, Any]], key: str, most: int) -> dict[str, Any]:
    """Return ``table[key]``; add it if it is missing. If there are too many, the one that was counted longest
    ago is dropped, except ``ALL``."""
    row = table.pop(key, {})
    while len(table) >= most:
        del table[next(name for name in table if name != ALL)]
    table[key] = row
    return row


def _completion(counts: dict[str, float], item: InferenceScored) -> None:
    _add(counts, questions=1)
    if item.novel is not None:
        _add(counts, measured=1, novel=item.novel)
    if item.format_valid is not None and not item.overrides:
        _add(counts, judged=1, invalid=not item.format_valid)


def _rating(counts: dict[str, float], item: InferenceScored) -> None:
    if item.overrides:
        return
    if item.rating is not None:
        _add(counts, rated=1, down=item.rating == "down")
    if item.agrees is not None:
        _add(counts, labelled=1, disagree=not item.agrees)


def _add(counts: dict[str, float], **more: float) -> None:
    for name, value in more.items():
        if value:
            counts[name] = counts.get(name, 0.0) + float(value)


def as_figures(counts: Counts, prefix: str = "") -> dict[str, float]:
    """Return counts and rates under their names in ``turn.completed.v2``. With a ``prefix``: none if there
    were no questions."""
    rates = {
        "novel": (counts.novel, counts.measured),
        "invalid": (counts.invalid, counts.judged),
        "thumbs_down": (counts.down, counts.rated),
        "label_disagreement": (counts.disagree, counts.labelled),
    }
    if prefix and not counts.questions:
        return {}
    shown = {"questions": counts.questions, "ratings": counts.rated}
    shown |= {name: bad / total for name, (bad, total) in rates.items() if total}
    return {prefix + name: value for name, value in shown.items()}
