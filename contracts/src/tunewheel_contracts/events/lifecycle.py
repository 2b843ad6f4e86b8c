"""What the registry produces: the life of every model, and what should be served."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import Slug, SourceId, Text
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef, BaseModelFacts, BaseModelRef
from tunewheel_contracts.formats.serving import DesiredRoutes, Route
from tunewheel_contracts.principal import OptionalPrincipal


class Stage(StrEnum):
    REGISTERED = "registered"
    EVALUATED = "evaluated"
    SHADOW = "shadow"
    CANARY = "canary"
    PRODUCTION = "production"
    RETIRED = "retired"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


POSITION = "Place among the project's lifecycle events, from 1; None: of before they were counted."
"""Their topics have no order between them."""
Position = Annotated[Annotated[int, Field(ge=1)] | None, Field(description=POSITION)]
DECIDED_BY = (
    "``criteria``, ``review``, ``rollout`` or ``command``: what put the model where it is now. "
    "None: it follows from what happened to another, or nobody said."
)
DecidedBy = Annotated[str | None, Field(description=DECIDED_BY)]


class ModelRegistered(Event):
    """A model is known. ``kind`` base: a base model, never promoted, always there to fall back on."""

    type: ClassVar[str] = "model.registered"
    subject_field: ClassVar[str] = "model_id"

    project: Slug
    model_id: Slug
    kind: Literal["base", "adapter", "full"]
    base: BaseModelRef
    base_facts: BaseModelFacts | None = None
    """Of a base model: what the training that brought it here read in its files."""
    adapter: AdapterRef | None = None
    run_id: Slug | None = None
    dataset_id: Slug | None = None
    generation: Position = None


class ModelPromoted(Event):
    """A model moved up a stage, stepped down in good order (``retired``, ``rejected``), or came back
    (``production`` after ``retired``) because its successor was rolled back. Where both stages are the same,
    it stays, and more is known of it: another verdict, or that it held up."""

    type: ClassVar[str] = "model.promoted"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("from_stage", "to_stage", "cause")

    project: Slug
    model_id: Slug
    from_stage: Stage
    to_stage: Stage
    replaces: Slug | None = None
    """On reaching production: the champion it takes over from, which retires next."""
    cause: str
    """Id of the event that decided it."""
    reason: str
    against: Slug | None = None
    """On a verdict: the champion that it compared with; None: there was none, or nobody said."""
    bundle: Bundle | None = None
    """On a verdict: what was judged, which is what will serve."""
    held_up: bool = False
    """It has done what this stage asks for and waits there; ``reason`` says for what. In ``evaluated``: a
    verdict against the present champion was undecided."""
    decided_by: DecidedBy = None
    generation: Position = None


class ModelRolledback(Event):
    """A model was taken out of traffic because it did worse, or was rejected; ``restored`` serves instead
    (None: the bare base)."""

    type: ClassVar[str] = "model.rolledback"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("from_stage", "cause")

    project: Slug
    model_id: Slug
    from_stage: Stage
    restored: Slug | None
    cause: str
    reason: str
    decided_by: DecidedBy = None
    generation: Position = None


class ModelCommanded(Event):
    """A person wants a model in another stage, or production to stay as it is."""

    type: ClassVar[str] = "model.commanded"
    subject_field: ClassVar[str] = "model_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("action", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal", "force")

    project: Slug
    model_id: Slug
    action: str
    """``promote``, ``rollback``, ``pin``, ``unpin``, ``retire``, ``reject`` or ``stop``. To stop,
    ``model_id`` may be ``champion`` or ``base``: whoever that is when the registry reads it."""
    reason: Annotated[Text, Field(min_length=1)]
    request: Annotated[str, Field(min_length=1, max_length=256)]
    """Tells repeated commands apart."""
    generation: Annotated[int, Field(ge=0)] | None = None
    """Of the state that the person saw: the command counts only while it is the newest. None: whatever is."""
    force: bool = False
    """Promote even what was never judged, or did not pass. What a person rejected stays out all the same."""
    requested_by: SourceId | None = None
    principal: OptionalPrincipal = None


class ModelPinned(Event):
    """Production stays with a model until it is unpinned: no other is promoted. ``alone``: the model, which
    may be a base, answers everything, and nobody else sees traffic."""

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
    """A command on a model was not carried out."""

    type: ClassVar[str] = "command.refused"
    subject_field: ClassVar[str] = "command_id"

    project: Slug
    command_id: str
    """Id of the ``model.commanded``."""
    model_id: Slug
    action: str
    field: str
    reason: str


class ServingDesired(Event):
    """The whole desired state of one project; the newest replaces all before (compacted topic)."""

    type: ClassVar[str] = "serving.desired"
    subject_field: ClassVar[str] = "project"
    identity_fields: ClassVar[tuple[str, ...]] = ("generation", "desired")
    identity_when_given: ClassVar[tuple[str, ...]] = ("system_prompt", "stand_ins")

    project: Slug
    generation: Annotated[int, Field(ge=0)]
    """Count of lifecycle events behind this state: a larger one is newer."""
    base: BaseModelRef
    system_prompt: str
    desired: DesiredRoutes
    stand_ins: Annotated[tuple[Route, ...], Field(max_length=8)] = ()
    """Who answers for production where its adapter cannot be loaded: the champions before it, newest first;
    the bare base where there was none."""
