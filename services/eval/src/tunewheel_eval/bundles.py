"""The bundle of each contestant: everything that determines its answers. If it passes, this bundle serves."""

from __future__ import annotations

from tunewheel_contracts.fields import JsonObject
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.confidence import Abstention, Calibration, Certainty
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_generation.constraint import unenforceable


def bundle_of(
    adapter: AdapterRef | None,
    form: AdapterRef,
    spec: ProjectSpec,
    *,
    precision: str,
    with_passages: bool = False,
    constraint: JsonObject | None = None,
) -> Bundle:
    """Return the bundle in which ``adapter`` is measured under ``spec``; None: the bare base.

    ``form``: the adapter whose base is used, in the form that it was trained on. ``precision``: that of the
    computation. ``with_passages``: the prompts had the passages that ``spec.retrieval`` finds.
    ``constraint``: the schema by which decoding was constrained.
    """
    return Bundle(
        base=form.base,
        model_id=adapter.model_id if adapter else None,
        adapter_sha256=content_sha256(files_of(adapter)) if adapter else None,
        template_sha256=form.base_facts.chat_template_sha256 if form.base_facts else None,
        chat_template_kwargs=spec.task.chat_template_kwargs,
        system_prompt=spec.task.system_prompt,
        decoding=spec.evaluation.decoding,
        max_output_tokens=spec.task.max_output_tokens,
        constraint_sha256=content_sha256(constraint) if constraint is not None else None,
        constraint=constraint,
        precision=precision,
        quantization=form.quantization,
        retrieval_sha256=spec.retrieval.sha256 if with_passages and spec.retrieval is not None else None,
    )


def bundle_for(plan: EvaluationPlan, role: Role, spec: ProjectSpec, *, precision: str) -> Bundle:
    """Return the bundle in which the contestant of ``role`` is measured. See ``bundle_of``."""
    adapter = plan.contestants[role]
    looks_up = plan.index is not None and spec.retrieval is not None and spec.retrieval.default == "on"
    return bundle_of(
        adapter,
        adapter or plan.adapter,
        spec,
        precision=precision,
        with_passages=looks_up,
        constraint=constraint_of(plan, role, spec),
    )


def constraint_of(plan: EvaluationPlan, role: Role, spec: ProjectSpec) -> JsonObject | None:
    """Return the schema by which the contestant of ``role`` is constrained where it serves, and so here too:
    the champion by its own verdict's, the others by the schema of ``spec``. None: it is not constrained, for
    example because no grammar can enforce the schema."""
    if role is Role.CHAMPION and plan.champion is not None:
        return plan.champion.constraint
    return enforced(spec) if spec.task.constrained else None


def enforced(spec: ProjectSpec) -> JsonObject | None:
    """Return the task's schema; None: the task has no schema, or no grammar can enforce the schema."""
    schema = spec.task.output_schema
    return schema if schema is not None and unenforceable(schema) is None else None


def with_certainty(
    bundle: Bundle, known: Calibration | None, abstains: Abstention | None, *, label_field: str | None
) -> Bundle:
    """Return ``bundle`` with what makes the model's confidence in its label known, and the confidence below
    which answers are not sent, if any."""
    if known is None:
        return bundle
    least = abstains.chosen.least if abstains else None
    certainty = Certainty(intercept=known.intercept, slope=known.slope, least=least, label_field=label_field)
    return bundle.model_copy(update={"certainty": certainty})


def files_of(adapter: AdapterRef) -> dict[str, str]:
    """Return the hashes of an adapter's files by their paths below its own."""
    return {file.path.removeprefix(f"{adapter.path}/"): file.sha256 for file in adapter.files}
