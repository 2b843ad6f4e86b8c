"""Writes a model card in the Hugging Face hub's format: metadata in YAML, then text.

The card holds the project's system prompt, but no users' prompts, answers or names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.formats.scorecard import Contestant, Finding, Role, Scorecard

from tunewheel_registry.about.facts import ModelFacts
from tunewheel_registry.state import Step

HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")
"""The hub's pattern of model names. A base that was loaded from a folder has no such name."""
OVERRULED = re.compile(r"; .* overruled that")
"""The part of a step's reason that names the reviewer who overruled criteria."""
COUNTS = frozenset({"examples", "regression_items"})
SHOWN_RECIPE = (
    "rank", "alpha", "dropout", "rslora", "dora", "learning_rate", "epochs", "batch_size", "scheduler",
    "warmup_fraction", "weight_decay", "max_tokens", "seed",
)  # fmt: skip
LIMITS = (
    "It was trained and judged on this project's task alone. On other tasks it was tested only by the "
    "regression set above.",
    "Its answers can be well-formed and wrong.",
    "The figures come from one holdout. The intervals show how far the figures of another such holdout could "
    "lie.",
)


def model_card(facts: ModelFacts) -> str:
    """Return the card as Markdown with YAML front matter, the same for the same facts."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    known = facts.model.registration
    candidate = _contestant(facts.scorecard, Role.CANDIDATE)
    results = [
        EvalResult(
            task_type="text-generation", dataset_type="tunewheel",
            dataset_name=f"{known.dataset_id} (holdout)", metric_type=name, metric_value=value,
        )
        for name, value in (candidate.metrics if candidate else {}).items()
        if name not in COUNTS
    ]  # fmt: skip
    on_hub = known.base.name if HUB_ID.match(known.base.name) else None
    data = ModelCardData(
        base_model=on_hub,
        license=facts.license,
        library_name="peft" if known.kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        tags=["tunewheel"],
        model_name=facts.model.model_id if results else None,
        eval_results=results or None,
        base_model_relation=("adapter" if known.kind == "adapter" else "finetune") if on_hub else None,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(facts)}"))


def _body(facts: ModelFacts) -> str:
    parts = [
        f"# {facts.model.model_id}\n\n{_what_for(facts)}",
        "## Base\n\n" + _base(facts),
        "## Data\n\n" + _data(facts),
        "## Training\n\n" + (_training(facts.run) if facts.run else "The run's manifest is missing."),
        "## Evaluation\n\n" + _evaluation(facts),
        "## Review by people\n\n" + _review(facts),
        "## What serves\n\n" + _bundle(facts),
        "## Stages\n\n" + _stages(facts),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
    ]
    if facts.missing:
        told = "\n".join(f"- {name}: {_cell(reason)}" for name, reason in facts.missing.items())
        parts.append("## Files that cannot be read\n\n" + told)
    return "\n\n".join(parts) + "\n"


def _what_for(facts: ModelFacts) -> str:
    project, spec = facts.model.registration.project, facts.dataset.spec if facts.dataset else None
    lines = [f"A model of the project `{project}`, now in the stage **{facts.model.stage.value}**."]
    if spec is not None:
        lines += [spec.description] if spec.description else []
        answer = "JSON that fits the project's schema" if spec.task.output_schema else "text"
        lines.append(f"**Intended use:** only to answer with {answer}, under the system prompt below.")
    return "\n\n".join(lines)


def _base(facts: ModelFacts) -> str:
    known = facts.model.registration
    quantized = known.adapter.quantization if known.adapter else None
    return _table(
        ("", ""),
        [
            ("model", f"`{known.base.name}`"),
            ("revision", f"`{known.base.revision}`"),
            ("license", facts.license or "not stated in its files"),
            ("weights while training", quantized or "as published"),
        ],
    )


def _data(facts: ModelFacts) -> str:
    dataset = facts.dataset
    if dataset is None:
        return f"Version `{facts.model.registration.dataset_id}`."
    counts = dataset.counts
    rows: list[tuple[Any, ...]] = [
        ("version", f"`{dataset.dataset_id}`"),
        ("previous version", f"`{dataset.previous}`" if dataset.previous else "none"),
        ("records", counts.records),
        ("examples to train on", counts.train),
        ("of these, general replay", counts.replay),
        ("examples held out", counts.holdout),
    ]
    if dataset.replay:
        rows.append(("replay", f"{dataset.replay.source}, license {dataset.replay.license or 'not stated'}"))
    told = _table(("", ""), rows)
    return told + (f"\n\nA preliminary version: {dataset.preliminary}" if dataset.preliminary else "")


def _training(run: RunManifest) -> str:
    recipe = run.recipe.model_dump(mode="json")
    rows: list[tuple[Any, ...]] = [("run", f"`{run.run_id}`"), ("method", run.recipe.method.value)]
    rows += [(name.replace("_", " "), recipe[name]) for name in SHOWN_RECIPE if name in recipe]
    if run.recipe.preference:
        rows.append(("preference", run.recipe.preference.method.value))
    if run.plan:
        rows.append(("device", run.plan.device))
    rows += [("precision", run.dtype), ("steps", run.steps), ("tokens", run.tokens)]
    rows.append(("seconds", f"{run.wall_seconds:.0f}"))
    if run.usage and run.usage.peak_bytes:
        rows.append(("peak memory", f"{run.usage.peak_bytes / 1e9:.1f} GB"))
    rows += [(name, version) for name, version in sorted(run.versions.items())]
    adjusted = [f"- {a.field} became {a.value} after step {a.after_step}" for a in run.adjustments]
    return _table(("", ""), rows) + ("\n\nTo fit in memory:\n\n" + "\n".join(adjusted) if adjusted else "")


def _evaluation(facts: ModelFacts) -> str:
    card, evaluation = facts.scorecard, facts.evaluation
    outcome = evaluation.facts["outcome"] if evaluation else None
    if card is None:
        return f"Outcome: {outcome}." if outcome else "It has not been evaluated yet."
    parts = [f"Outcome: **{outcome}**. Criteria `{card.criteria_sha256[:12]}`, declared before the training."]
    if card.reason:
        parts.append(f"It could not be measured: {card.field} {card.reason}")
    roles = list(card.contestants)
    names = dict.fromkeys(name for c in roles for name in c.metrics)
    measured = [(name, *(_figure(c.metrics.get(name)) for c in roles)) for name in names]
    parts.append(_table(("metric", *(f"{c.role.value} `{c.model_id}`" for c in roles)), measured))
    if card.findings:
        found = [
            (
                f.metric,
                f.against,
                f"{f.difference:+.4g}",
                interval(f),
                f"{f.p_value:.3g}",
                f.test,
                f.rows,
                f.clusters,
            )
            for f in card.findings
        ]
        head = ("metric", "against", "difference", "interval", "p", "test", "rows", "independent groups")
        parts.append("Differences, candidate minus other:\n\n" + _table(head, found))
    checks = [(c.criterion.title, c.end, c.reason) for c in card.checks]
    parts.append(_table(("criterion", "outcome", "why"), checks))
    if card.looks:
        parts.append(f"{card.looks} verdicts were based on these held-out rows.")
    if card.left_out:
        told = ", ".join(f"{count} ({reason})" for reason, count in card.left_out.items())
        parts.append(f"Held-out rows that were left out of the measurement: {told}.")
    return "\n\n".join(parts)


def interval(finding: Finding) -> str:
    """Return a finding's interval and the confidence of each end."""
    return f"{finding.low:+.4g} … {finding.high:+.4g} (each end {1 - finding.alpha:.1%})"


def _review(facts: ModelFacts) -> str:
    if not facts.reviews:
        return "No review was asked for."
    lines: list[str] = []
    for review in facts.reviews:
        verdicts = [said.get("verdict") for said in review.facts.get("reviewers", {}).values()]
        approved, rejected = verdicts.count("approved"), verdicts.count("rejected")
        lines.append(f"`{review.key}`: {len(verdicts)} reviewers, {approved} approved, {rejected} rejected.")
    outcome = facts.evaluation.facts.get("review") if facts.evaluation else None
    if outcome:
        alpha = "not known" if outcome["alpha"] is None else f"{outcome['alpha']:.2f}"
        lines.append(
            f"Of {outcome['answers']} judgements, {outcome['better']} preferred the candidate, "
            f"{outcome['worse']} the other, and {outcome['same']} neither: preference "
            f"{outcome['preference']:.2f} ({outcome['preference_low']:.2f} … "
            f"{outcome['preference_high']:.2f}), Krippendorff's alpha {alpha}."
        )
    return "\n\n".join(lines)


def _bundle(facts: ModelFacts) -> str:
    bundle = bundle_of(facts)
    if bundle is None:
        return "The verdict holds no bundle: the model is served as the project's present spec says."
    held = f"`{bundle.constraint_sha256[:12]}`" if bundle.constraint_sha256 else "none"
    rows = [
        ("bundle", f"`{bundle.sha256[:12]}`"),
        ("decoding", _listed(bundle.decoding.model_dump(mode="json"))),
        ("longest answer", f"{bundle.max_output_tokens} tokens"),
        *([("chat template", _listed(bundle.chat_template_kwargs))] if bundle.chat_template_kwargs else []),
        ("constraint", held),
        ("precision", bundle.precision),
        ("quantisation", bundle.quantization or "none"),
    ]
    return _table(("", ""), rows) + "\n\nSystem prompt:\n\n" + _quoted(bundle.system_prompt)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def bundle_of(facts: ModelFacts) -> Bundle | None:
    """Return the bundle with which the model was judged."""
    return facts.scorecard.bundle if facts.scorecard else None


def _stages(facts: ModelFacts) -> str:
    steps = [
        (f"{step.at:%Y-%m-%d %H:%M}" if step.at else "", step.stage.value, _why(step))
        for step in facts.model.history
    ]
    return _table(("when (UTC)", "stage", "why"), steps)


def _why(step: Step) -> str:
    """Return the reason of a step without the name and the comment of a reviewer, which verdicts quote. In
    old logs a person's rejection has no ``decided_by``."""
    if step.stage in (Stage.REJECTED, Stage.ROLLED_BACK) and step.decided_by in (None, "review"):
        return "rejected in a review"
    return OVERRULED.sub("; a review overruled that", step.reason)


def _contestant(card: Scorecard | None, role: Role) -> Contestant | None:
    return next((c for c in card.contestants if c.role is role), None) if card else None


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    """Return a value as one line, escaped so that it cannot end a table's cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())
