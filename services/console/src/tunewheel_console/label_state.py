"""The state of requests for labels, folded from events: which wait, and why the others ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested, Trust
from tunewheel_contracts.events.monitoring import DriftResolved, LabelsRequested, TurnDecided


@dataclass
class LabelRequests:
    """The requests for labels of one project. Their events come from several topics, in any order."""

    by_id: dict[str, Envelope[LabelsRequested]] = field(default_factory=dict[str, Envelope[LabelsRequested]])
    """The newest revision of each request. ``wanted`` is the number of answers for which curate waits now.
    After a failed turn it is larger than the monitor's."""
    answered: set[str] = field(default_factory=set[str])
    """Completions that an expert has answered, here or elsewhere, according to the latest records. Older
    records are not read."""
    _resolved: dict[str, str] = field(default_factory=dict[str, str])
    """By alarm, why it was resolved."""
    _decided: Envelope[TurnDecided] | None = None
    """The latest decision."""

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event. The same event a second time changes nothing."""
        match envelope.data:
            case LabelsRequested() as data:
                newest = self.by_id.get(data.request_id, envelope)
                self.by_id[data.request_id] = max(newest, envelope, key=lambda one: one.data.revision)
                self._count_wanted()
            case TurnDecided() if self._decided is None or self._decided.time <= envelope.time:
                self._decided = envelope
                self._count_wanted()
            case RecordIngested() as data if data.trust is Trust.EXPERT and self._is_wanted(data.source_id):
                self.answered.add(data.source_id)
            case DriftResolved() as data:
                self._resolved[data.alarm_id] = data.reason
            case _:
                pass

    def _count_wanted(self) -> None:
        alarms = self._decided.data.alarms if self._decided is not None else ()
        needed = {alarm.alarm_id: alarm.labels_needed for alarm in alarms if alarm.labels_needed}
        for name, request in self.by_id.items():
            if wanted := needed.get(request.data.alarm_id):
                more = request.data.model_copy(update={"wanted": wanted})
                self.by_id[name] = replace(request, data=more)

    def _is_wanted(self, completion_id: str) -> bool:
        return any(completion_id in one.data.completion_ids for one in self.by_id.values())

    def outcome_of(self, request_id: str) -> str | None:
        """Return why a request needs no labels any more; None while it waits."""
        return self._resolved.get(self.by_id[request_id].data.alarm_id)

    @property
    def waiting(self) -> list[Envelope[LabelsRequested]]:
        return [one for name, one in self.by_id.items() if self.outcome_of(name) is None]
