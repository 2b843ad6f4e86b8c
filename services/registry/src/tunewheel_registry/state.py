"""The state of a project's models, as the lifecycle events leave it (``lifecycle.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.lifecycle import ModelPinned, ModelRegistered, Stage, WrittenStage
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Gain
from tunewheel_contracts.identity import content_id

from tunewheel_registry.budget import Account

CANDIDATE_STAGES = (Stage.SHADOW, Stage.CANARY)
JUDGED_STAGES = (Stage.EVALUATED, Stage.UNDECIDED)
"""Stages outside the traffic in which a model waits after its verdict."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step in the life of a model. ``cause`` is the id of the event that decided it."""

    event_id: str
    stage: Stage
    reason: str
    cause: str | None = None
    at: datetime | None = None
    decided_by: str | None = None
    """``criteria``, ``review``, ``rollout`` or ``command``."""


@dataclass(frozen=True, slots=True)
class Model:
    registration: ModelRegistered
    stage: Stage
    history: tuple[Step, ...]
    replaces: str | None = None
    """The champion that the model replaced when it reached production."""
    bundle: Bundle | None = None
    """The bundle of the model's newest verdict; None: the verdict names none."""
    judged_by: str | None = None
    """Id of the newest verdict that moved the model; it passed, or was undecided."""
    beaten: frozenset[str] = frozenset()
    """The champions with which the model was compared in verdicts that it passed."""
    against: str | None = None
    """The champion with which the newest undecided verdict compared the model."""
    to_show: float | None = None
    """What a trial has to show after the newest undecided verdict (``ModelPromoted.to_show``)."""
    gains: Mapping[str, Gain] = field(default_factory=dict[str, Gain])
    """By champion: the newest measured difference of the model from it."""
    account: Account = field(default_factory=Account)
    """In production: the difference from the best champion so far."""
    held_up_in: Stage | None = None
    """A stage that the model has completed but cannot leave yet: it passed its trial there, or its next
    verdict was undecided."""

    @property
    def model_id(self) -> str:
        return self.registration.model_id

    def was_decided_by(self, cause: str) -> bool:
        return any(step.cause == cause for step in self.history)

    def has_been(self, stage: Stage) -> bool:
        return any(step.stage is stage for step in self.history)

    @property
    def decided_by(self) -> str | None:
        return self.history[-1].decided_by

    @property
    def waits(self) -> bool:
        """Whether the model has completed its stage and waits to go on."""
        return self.stage in JUDGED_STAGES or self.held_up_in is self.stage

    @property
    def compared(self) -> frozenset[str]:
        """The champions with which the model was compared, and was not shown to be worse."""
        return self.beaten | ({self.against} if self.against else set())

    @property
    def is_doubted(self) -> bool:
        """Whether the newest verdict was undecided, and no trial has shown more yet."""
        on_trial = self.stage is Stage.SHADOW and self.to_show is not None and not self.waits
        return self.stage is Stage.UNDECIDED or on_trial

    @property
    def is_out_for_good(self) -> bool:
        """Whether a person rejected the model. A rejection without ``decided_by`` counts as a person's."""
        if self.stage is Stage.REJECTED:
            return self.decided_by != "criteria"
        return self.stage is Stage.ROLLED_BACK and self.decided_by in (None, "review")


@dataclass(frozen=True)
class State:
    """The models of one project, in the order of registration. What is asked for once per model is derived
    once: a project may have thousands of models."""

    project: str
    models: Mapping[str, Model] = field(default_factory=dict[str, Model])
    pins: tuple[ModelPinned, ...] = ()
    refused: frozenset[str] = frozenset()
    """Ids of the commands that were refused."""
    requested: frozenset[str] = frozenset()
    """Ids of the published ``eval.requested`` events."""

    @cached_property
    def generation(self) -> int:
        """Number of lifecycle events that led to this state."""
        return len(self.pins) + sum(len(model.history) for model in self.models.values())

    @property
    def pinned(self) -> Model | None:
        """The model that is pinned in production; None: no model is."""
        if not self.pins or not self.pins[-1].pinned:
            return None
        return self.models.get(self.pins[-1].model_id)

    @property
    def stopped_to(self) -> Model | None:
        """The model that answers alone after the command ``stop``: the champion or a base. None: not
        stopped."""
        return self.pinned if self.pinned is not None and self.pins[-1].alone else None

    def was_decided_by(self, cause: str) -> bool:
        by_model = any(model.was_decided_by(cause) for model in self.models.values())
        return by_model or any(pin.cause == cause for pin in self.pins)

    @cached_property
    def champion(self) -> Model | None:
        """The model in production. While two are, because the old one is not retired yet, the new one."""
        replaced = {m.replaces for m in self.models.values() if m.stage is Stage.PRODUCTION}
        serving = (model for model in self.models.values() if model.stage is Stage.PRODUCTION)
        return next((model for model in serving if model.model_id not in replaced), None)

    @property
    def base(self) -> Model | None:
        """The base model that answers where no other model does: the champion's base, or else the base that
        was registered last."""
        bases = [model for model in self.models.values() if model.registration.kind == "base"]
        champion = self.champion
        if champion is None:
            return bases[-1] if bases else None
        return next((b for b in bases if b.registration.base == champion.registration.base), None)

    @cached_property
    def candidates(self) -> tuple[Model, ...]:
        """The models in shadow or canary."""
        return tuple(model for model in self.models.values() if model.stage in CANDIDATE_STAGES)

    @cached_property
    def trial(self) -> Model | None:
        """The candidate whose trial runs; None: there is no candidate, or it completed its trial and
        waits."""
        return next((model for model in self.candidates if not model.waits), None)

    def newer_in_traffic(self, model: Model) -> Model | None:
        """Return a version that was registered after ``model`` and is on trial or in production. A version
        that must first show its answers to be good enough outdates only models that must show that too."""
        at = self._numbers[model.model_id]
        newer = (m for m in self._in_traffic if self._numbers[m.model_id] > at)
        return next((m for m in newer if model.is_doubted or not m.is_doubted), None)

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {model_id: number for number, model_id in enumerate(self.models)}

    @cached_property
    def _in_traffic(self) -> tuple[Model, ...]:
        stages = (*CANDIDATE_STAGES, Stage.PRODUCTION)
        return tuple(model for model in self.models.values() if model.stage in stages)

    @property
    def spent(self) -> float:
        """How much worse than the best champion so far the present one may be."""
        return self.champion.account.spent if self.champion else 0.0

    @cached_property
    def predecessors(self) -> tuple[Model, ...]:
        """The former champions that can serve again, newest registration first. A champion that was retired
        by command is not among them. A version never replaces one that was registered after it."""
        was_champion = (m for m in list(self.models.values())[::-1] if m.has_been(Stage.PRODUCTION))
        return tuple(m for m in was_champion if m.stage is Stage.RETIRED and m.decided_by != "command")

    @property
    def predecessor(self) -> Model | None:
        """The former champion that takes over if the present one is rolled back."""
        return next(iter(self.predecessors), None)

    def in_stage(self, stage: Stage) -> Model | None:
        return next((model for model in self.models.values() if model.stage is stage), None)


def base_model_id(base: BaseModelRef) -> str:
    """Return the id under which a base model is registered. It is made of a hash, since names of base models
    are no valid ids."""
    return content_id("base", base.model_dump(mode="json"), digits=12)


def written(stage: Stage) -> WrittenStage:
    """Return ``stage`` as events name it: see ``ModelPromoted.undecided``."""
    return Stage.EVALUATED if stage is Stage.UNDECIDED else stage


def known_model(state: State, model_id: str) -> Model:
    model = state.models.get(model_id)
    if model is None:
        raise InvalidEvent(
            field="model_id", reason=f"{model_id} is not registered in project {state.project}"
        )
    return model
