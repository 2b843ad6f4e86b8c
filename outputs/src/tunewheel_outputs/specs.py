"""Checks a project's spec before it is put in force."""

from __future__ import annotations

from functools import partial

from tunewheel_contracts.errors import InvalidSpec, check_all
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec

from tunewheel_outputs.criteria import check_criteria
from tunewheel_outputs.reward import reward_parts

MAX_SPEC_BYTES = 1 << 20


def check_spec(text: str, *, allowed: AllowedSources | None = None) -> ProjectSpec:
    """Read and check a spec. ``allowed``: the hosts and folders that specs may name; None: they are not
    checked here, and curate rejects a build if necessary. Raises InvalidSpec: with all faults that can be
    told at once. The fields come first: only a spec whose fields are valid is checked further."""
    spec = parse_spec(text)
    check_all(
        partial(check_criteria, spec),
        partial(_check_training, spec),
        *([partial(allowed.check, spec)] if allowed is not None else []),
    )
    return spec


def _check_training(spec: ProjectSpec) -> None:
    if spec.trains_with_passages and spec.retrieval is not None and spec.retrieval.default == "off":
        reason = (
            "puts passages into the prompts that train, but retrieval.default is off: the model would be "
            'judged and serve without them; write default: "on", or leave training out'
        )
        raise InvalidSpec(field="retrieval.training", reason=reason)
    if spec.train.reward is not None and not reward_parts((one.metric for one in spec.criteria), spec.task):
        reason = (
            "needs a criterion by which one answer can be scored beside the expert's, such as "
            "label_accuracy, valid_output or rouge_l; add one to criteria, or remove reward"
        )
        raise InvalidSpec(field="train.reward", reason=reason)


def untold_change(before: ProjectSpec | None, after: ProjectSpec) -> str | None:
    """Return a sentence about changes of ``after`` that do not take effect yet; None if there are none.

    Settings that determine answers are served as they were evaluated, together with the evaluated version.
    """
    if before is None:
        return None
    pairs = {
        "task.system_prompt": (before.task.system_prompt, after.task.system_prompt),
        "task.output_schema": (before.task.output_schema, after.task.output_schema),
        "task.constrained": (before.task.constrained, after.task.constrained),
        "task.max_output_tokens": (before.task.max_output_tokens, after.task.max_output_tokens),
        "task.chat_template_kwargs": (before.task.chat_template_kwargs, after.task.chat_template_kwargs),
        "evaluation.decoding": (before.evaluation.decoding, after.evaluation.decoding),
    }
    changed = [name for name, (old, new) in pairs.items() if old != new]
    if not changed:
        return None
    return (
        f"{' and '.join(changed)} changed: models that were judged serve as they were judged until a version "
        "that is built from now on is promoted; `tunewheel dataset build` asks for one"
    )


def vacuous_form(spec: ProjectSpec) -> str | None:
    """Return a sentence about a criterion on the form of answers that constrained answers always meet; None
    if there is none. Output rules are not enforced, so with rules the criterion still says something."""
    task = spec.task
    if task.output_schema is None or not task.constrained or task.output_rules:
        return None
    places = [f"criteria.{n}" for n, one in enumerate(spec.criteria) if one.metric == "valid_output"]
    if not places:
        return None
    return (
        f"{' and '.join(places)}: answers are constrained by task.output_schema, so valid_output is below 1 "
        "only where answers are cut off at task.max_output_tokens; drop the criterion unless it is meant for "
        "those"
    )
