"""Events of the registry: the lifecycle of models, and the desired state of serving."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import FiniteFloat, Fraction, Slug, SourceId, Text
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef, BaseModelFacts, BaseModelRef
from tunewheel_contracts.formats.scorecard import Gain
from tunewheel_contracts.formats.serving import DesiredRoutes, Route
from tunewheel_contracts.principal import OptionalPrincipal, OptionalSignature
from tunewheel_contracts.topic import TopicSpec


class Stage(StrEnum):
    REGISTERED = "registered"
    UNDECIDED = "undecided"
    """The verdict showed neither that the model is good enough nor that it is not. An event says so by
    ``ModelPromoted.undecided``."""
    EVALUATED = "evaluated"
    SHADOW = "shadow"
    CANARY = "canary"
    PRODUCTION = "production"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


WrittenStage = Literal[
    Stage.REGISTERED,
    Stage.EVALUATED,
    Stage.SHADOW,
    Stage.CANARY,
    Stage.PRODUCTION,
    Stage.RETIRED,
    Stage.REJECTED,
    Stage.ROLLED_BACK,
]
"""The stages that events name. Readers of earlier releases refuse an event that names another stage."""
POSITION = (
    "Position among the project's lifecycle events, from 1; null: made by a release that did not count them."
)
"""Needed because events of different topics have no order."""
Position = Annotated[Annotated[int, Field(ge=1)] | None, Field(description=POSITION)]
DECIDED_BY = (
    "What decided this step: ``criteria``, ``review``, ``rollout`` or ``command``. "
    "Null: the step followed from another model's step, or is unknown."
)
DecidedBy = Annotated[str | None, Field(description=DECIDED_BY)]


class ModelRegistered(Event):
    """A model was registered. ``kind`` base: a base model, which is never promoted and always available as a
    fallback."""

    type: ClassVar[str] = "model.registered"
    subject_field: ClassVar[str] = "model_id"

    project: Slug
    model_id: Slug
    kind: Literal["base", "adapter", "full"]
    base: BaseModelRef
    base_facts: BaseModelFacts | None = None
    """Facts of a base model, as read from its files by the training that used it."""
    adapter: AdapterRef | None = None
    run_id: Slug | None = None
    dataset_id: Slug | None = None
    generation: Position = None


class ModelPromoted(Event):
    """A model changed its stage: it was promoted, ``retired`` or ``rejected``, or it came back to
    ``production`` because its successor was rolled back. If both stages are the same, the model stays in its
    stage and the event adds a verdict, or that the model completed the stage (``held_up``)."""

    type: ClassVar[str] = "model.promoted"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("from_stage", "to_stage", "cause")

    project: Slug
    model_id: Slug
    from_stage: WrittenStage
    to_stage: WrittenStage
    replaces: Slug | None = None
    """For a step to production: the champion that the model replaces, which retires next."""
    cause: str
    """Id of the event that decided the step."""
    reason: str
    against: Slug | None = None
    """For a verdict: the champion that the model was compared with. Null: there was none, or it is
    unknown."""
    bundle: Bundle | None = None
    """For a verdict: the configuration that was judged, with which the model is served."""
    held_up: bool = False
    """The model has completed this stage and waits; ``reason`` says for what. In ``evaluated``: a verdict
    against the present champion was undecided."""
    undecided: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """The model's stage is ``undecided``. ``to_stage`` then is ``evaluated`` and ``held_up`` is true, which
    earlier releases read as a model that waits after an undecided verdict; so is ``from_stage`` of the step
    out of this stage."""
    to_show: Annotated[FiniteFloat | None, Field(exclude_if=lambda bound: bound is None)] = None
    """For a model whose verdict was undecided: its trial must show that its answers are better than the
    champion's by more than this share of questions; negative: not worse by that much. Null: nothing need be
    shown; in ``undecided``: no trial follows, and ``reason`` says why."""
    gain: Annotated[Gain | None, Field(exclude_if=operator.not_)] = None
    """The difference from the champion, as far as this step's verdict or trial measured it; for a step to
    production: from the champion that the model replaces. Null: nothing was measured."""
    decided_by: DecidedBy = None
    generation: Position = None

    @property
    def stage(self) -> Stage:
        """The model's stage after this step."""
        return Stage.UNDECIDED if self.undecided else self.to_stage

    @property
    def stage_before(self) -> Stage:
        """The model's stage before this step. Only an undecided model goes on trial with something to
        show."""
        is_undecided = self.to_show is not None and self.from_stage is Stage.EVALUATED and not self.undecided
        return Stage.UNDECIDED if is_undecided else self.from_stage


class ModelRolledback(Event):
    """A model was taken out of the traffic because it did worse or was rejected. ``restored`` is served
    instead (null: the base model)."""

    type: ClassVar[str] = "model.rolledback"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("from_stage", "cause")

    project: Slug
    model_id: Slug
    from_stage: WrittenStage
    restored: Slug | None
    cause: str
    reason: str
    decided_by: DecidedBy = None
    generation: Position = None


class ModelCommanded(Event):
    """A person's command: to move a model to another stage, or to keep production as it is."""

    type: ClassVar[str] = "model.commanded"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("action", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal", "force")

    project: Slug
    model_id: Slug
    action: str
    """``promote``, ``rollback``, ``pin``, ``unpin``, ``retire``, ``reject`` or ``stop``. For ``stop``,
    ``model_id`` may also be ``champion`` or ``base``; the registry resolves them when it reads the
    command."""
    reason: Annotated[Text, Field(min_length=1)]
    request: Annotated[str, Field(min_length=1, max_length=256)]
    """Distinguishes repeated commands."""
    generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the state that the person saw. If the state has changed since, the command is refused.
    Null: not compared."""
    force: bool = False
    """Promote a model even if it was not evaluated or did not pass. A model that a person rejected is refused
    nevertheless."""
    requested_by: SourceId | None = None
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


class ModelPinned(Event):
    """A model is pinned in production: no other model replaces it until it is unpinned. ``alone``: the model,
    which may be a base model, answers all requests, and no other model gets any."""

    type: ClassVar[str] = "model.pinned"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("pinned", "cause")

    project: Slug
    model_id: Slug
    pinned: bool
    cause: str
    reason: str
    alone: bool = False
    generation: Position = None


class CommandRefused(Event):
    """A command about a model was refused."""

    type: ClassVar[str] = "command.refused"
    subject_field: ClassVar[str] = "command_id"

    project: Slug
    command_id: str
    """Id of the ``model.commanded`` event."""
    model_id: Slug
    action: str
    field: str
    reason: str


class ServingDesired(Event):
    """The whole desired state of serving of one project. The newest event replaces all earlier ones
    (compacted topic)."""

    type: ClassVar[str] = "serving.desired"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("generation", "desired")
    identity_when_given: ClassVar[tuple[str, ...]] = ("system_prompt", "stand_ins", "spent")

    project: Slug
    generation: Annotated[int, Field(ge=0)]
    """Number of lifecycle events behind this state. A larger number is newer."""
    base: BaseModelRef
    system_prompt: str
    desired: DesiredRoutes
    stand_ins: Annotated[tuple[Route, ...], Field(max_length=8)] = ()
    """The models that may answer while the production adapter cannot be loaded: earlier champions, newest
    first, or the base model if there was none."""
    spent: Annotated[Fraction, Field(exclude_if=operator.not_)] = 0
    """How much worse than the best champion so far the present one may be, as a share of questions. A
    candidate's margin is smaller by this."""


MODEL_REGISTERED = TopicSpec(
    ModelRegistered, ("registry",), ("registry", "serve-gateway"), 1, replayed_by=("serve-gateway",)
)
MODEL_PROMOTED = TopicSpec(
    ModelPromoted,
    ("registry",),
    ("curate", "registry", "monitor", "serve-gateway"),
    1,
    replayed_by=("curate", "monitor", "serve-gateway"),
)
MODEL_ROLLEDBACK = TopicSpec(
    ModelRolledback,
    ("registry",),
    ("curate", "registry", "monitor"),
    1,
    replayed_by=("curate", "monitor"),
)
MODEL_COMMANDED = TopicSpec(ModelCommanded, ("console",), ("registry",), 1)
MODEL_PINNED = TopicSpec(ModelPinned, ("registry",), ("registry",), 1)
COMMAND_REFUSED = TopicSpec(CommandRefused, ("registry",), ("registry",), 1)
SERVING_DESIRED = TopicSpec(
    ServingDesired,
    ("registry", "console"),
    ("train", "serve-gateway", "eval", "monitor"),
    cleanup="compact",
    replayed_by=("train", "serve-gateway", "monitor"),
)
