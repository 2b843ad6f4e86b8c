"""Commands of people, what became of them, and the audit trail of all of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import Frozen, RelativePath, Slug, SourceId, Strict, Text, Timestamp
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.sweep import MOST_RECIPES, Changes, SweepMethod

State = Literal["waiting", "done", "refused"]
Request = Annotated[str | None, Field(min_length=1, max_length=256)]
"""The caller's name of a command. The same command of the same caller under the same name is one command,
however often it is sent. The header ``Idempotency-Key`` may give the name instead. None: a new command."""
Reason = Annotated[str, Field(min_length=1, max_length=10_000)]


class Accepted(Frozen):
    """A command is on the log. The services answer it later."""

    project: str
    command_id: str = ""
    """The id of the command's event."""


class RunOrdered(Accepted):
    run_id: str
    action: str


class ModelOrdered(Accepted):
    model_id: str
    """The model that the command names, also where the request says ``champion`` or ``challenger``."""
    action: str


class EvaluationOrdered(Accepted):
    run_id: str


class SweepOrdered(Accepted):
    sweep_id: str


class DocumentsWithdrawn(Accepted):
    """``command_id`` is the first of ``command_ids``."""

    command_ids: tuple[str, ...]
    """By document, in the order of the request."""
    warnings: tuple[str, ...] = ()
    """Of each withdrawn id that is not known, what it may mean."""


class ErasureOrdered(Accepted):
    erasure_id: str


class Command(Frozen):
    """What became of a command."""

    command_id: str
    project: str
    state: State
    """``done``: it was carried out, or, where no service answers such a command, it is on the log."""
    type: str = ""
    """The type of the command's event."""
    at: Timestamp | None = None
    action: str = ""
    """What is to be done, such as ``promote``."""
    target: str = ""
    """What the command is about, such as a model's id."""
    answered_by: str | None = None
    """The id of the event that carried it out, or the service that refused it."""
    answered_at: Timestamp | None = None
    led_to: str | None = None
    """What it made, such as a dataset version's id."""
    field: str | None = None
    """The field to correct; None: the command was not refused."""
    reason: str = ""
    """Why the command was refused, or what it led to."""


class Order(Strict):
    """The body of a command without further fields."""

    request: Request = None


class ModelOrder(Order):
    """The body of a command on a model. ``generation``: of the state on which the order is based. None: the
    newest one that the console knows."""

    reason: Reason
    force: bool = False
    generation: Annotated[int, Field(ge=0)] | None = None


class BuildOrder(Order):
    """The body of a request for a dataset version. It holds what was published before the request.

    ``wait``: first wait, ``patience_seconds`` at most, until ingest has made records of everything that was
    published so far. The answer comes once the command is on the log. ``release``: publish this version,
    which waits for a person (``held`` of a ``dataset.rejected``), from the records that it was made of.
    """

    wait: bool = True
    patience_seconds: Annotated[float, Field(ge=0, le=120)] = 30.0
    release: Slug | None = None


class EvaluationOrder(Order):
    """The body of a request for another evaluation of a run, against the model in production now."""

    criteria: Annotated[tuple[Criterion, ...], Field(max_length=64)] = ()
    """Criteria other than those declared before the training: the scorecard then informs, and decides
    nothing."""
    dataset_id: str | None = None
    """The version whose held-out rows are used, where the run did not train on them. None: the newest."""
    reason: Text = ""


class SweepOrder(Order):
    """The body of a request to try recipes on a dataset version. The ceilings are those of all runs
    together."""

    dataset_id: str
    recipes: Annotated[tuple[Changes, ...], Field(min_length=1, max_length=MOST_RECIPES)]
    """Of each recipe the fields that differ from the recipe of the version's spec."""
    method: SweepMethod = SweepMethod.GRID
    max_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Hours of training."""
    max_dollars: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class WithdrawalOrder(Order):
    """The body of a withdrawal: later dataset versions do not hold these documents."""

    documents: Annotated[tuple[RelativePath, ...], Field(min_length=1, max_length=1_000)]
    """Ids of documents: their paths below what was published."""
    reason: Text = ""


class ErasureOrder(Order):
    """The body of a request for erasure. ``request`` becomes its ``erasure_id``. Exactly one of ``customer``
    and ``source_id`` says what to erase."""

    request: SourceId | None = None
    customer: SourceId | None = None
    """The person: the ``customer`` of tickets and feedback, the ``group`` of examples."""
    source_id: SourceId | None = None
    """One source: the id of a ticket, document or example, or of the completion that feedback is about."""
    requested_by: SourceId
    """Who asks; it stands in the proof."""
    reason: Text = ""


class Holding(Frozen):
    """How far one holder of data is with an erasure."""

    holder: Slug
    done: bool = False
    records: int = 0
    """How many records, files, letters, outputs, excerpts or completions it erased."""
    completed_at: Timestamp | None = None


class Erasure(Frozen):
    """One request for erasure, and what is left of it."""

    erasure_id: str
    project: str
    command_id: str
    state: State
    """``done``: every holder has published its proof."""
    customer: str | None = None
    source_id: str | None = None
    requested_by: str
    requested_at: Timestamp
    reason: str = ""
    holders: tuple[Holding, ...]
    missing: tuple[str, ...] = ()
    """The holders without a proof. A service that is down carries the erasure out when it is back."""
    dataset_ids: tuple[str, ...] = ()
    """Dataset versions that still hold the erased data."""
    deleted_dataset_ids: tuple[str, ...] = ()
    """Dataset versions whose rows were deleted."""
    model_ids: tuple[str, ...] = ()
    """Models that were trained on versions with the erased data. They stay as they are."""


class AuditEntry(Command):
    """A command, who gave it, and at which door."""

    principal: str | None = None
    """The name of the key or the subject of the token; None: nobody was named."""
    issuer: str | None = None
    """The OIDC issuer of the token; None: an API key."""
    door: str
    """The service that published the command, by its own words."""
    signed_by: str | None = None
    """The id of the key that signed the command; None: it has no signature."""
