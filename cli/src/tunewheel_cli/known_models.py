"""Every registered model and its stage, folded from the lifecycle events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, Stage
from tunewheel_contracts.topics import TopicSpec

LIFE: tuple[TopicSpec, ...] = (topics.MODEL_REGISTERED, topics.MODEL_PROMOTED, topics.MODEL_ROLLEDBACK)


@dataclass(slots=True)
class KnownModel:
    """One model: its registration and its stage."""

    registration: ModelRegistered
    stage: Stage = Stage.REGISTERED

    @property
    def about(self) -> str:
        """What a base model's own files say about it, in one line."""
        facts = self.registration.base_facts
        if facts is None:
            return ""
        template = facts.chat_template_sha256
        said = (
            facts.license,
            facts.parameters and f"{facts.parameters / 1e6:,.0f}M parameters",
            facts.context_length and f"context {facts.context_length:,}",
            template and f"chat template {template[:12]}",
        )
        return ", ".join(part for part in said if part)

    def as_json(self) -> dict[str, Any]:
        """Return the model for machines."""
        return self.registration.model_dump(mode="json", exclude={"adapter"}) | {"stage": self.stage.value}


def fold(events: Iterable[Envelope[Any]]) -> list[KnownModel]:
    """Return every model in the order of registration. Events are applied in the order of their time."""
    ordered = sorted(events, key=lambda event: event.time)
    found: dict[tuple[str, str], KnownModel] = {}
    for event in ordered:  # a base model has one id in every project
        if isinstance(event.data, ModelRegistered):
            found.setdefault((event.project, event.data.model_id), KnownModel(event.data))
    for event in ordered:
        model = found.get((event.project, event.data.model_id))
        if model is not None and not isinstance(event.data, ModelRegistered):
            promoted = isinstance(event.data, ModelPromoted)
            model.stage = event.data.to_stage if promoted else Stage.ROLLED_BACK
    return list(found.values())
