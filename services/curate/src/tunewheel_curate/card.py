"""The data card: what a person should know before trusting a dataset version."""

from __future__ import annotations

from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.pipeline import Build, label_counts
from tunewheel_curate.quality import quality_sections

FEW_EXAMPLES = 10
LIMITS = (
    "Documents (SOPs) are kept in the record table; no examples are made from them.",
    "Records without an answer are kept in the record table and not used.",
    "Personal data is found by patterns. Names, postal addresses and anything without a pattern stay.",
    "Two inputs that differ in one word can be near-duplicates; of such a pair one is kept.",
)
CLEANED = {
    "quoted_history": "tickets whose quoted history was cut",
    "signatures": "tickets whose signature was cut",
    "greetings": "tickets whose greeting was cut",
    "disclaimers": "tickets whose legal notice was cut",
    "prompt_injection": "records that address the model (prompt injection); kept as data, marked in lineage",
    "control_tokens": "records with signs of a chat template; kept, broken up, marked in lineage",
}


def data_card(dataset_id: str, spec: ProjectSpec, build: Build) -> str:
    """Return the card as Markdown. It holds no clock, so that a version's card is always the same."""
    counts = build.counts
    parts = [
        f"# Dataset {dataset_id}",
        spec.description or f"Examples of the project {spec.project}.",
        f"{counts.records} records gave {counts.examples} examples: {counts.train} to train on, "
        f"{counts.holdout} held out. An example of a group, or much like one, never lies on both sides.",
        "## Funnel\n\n" + _funnel(build.funnel),
        "## Cleaning\n\n" + _cleaning(build.figures.get("cleaning", {})),
        "## Personal data\n\n" + _personal_data(spec, build.redactions),
    ]
    if spec.task.label_field is not None:
        parts.append(f"## Labels ({spec.task.label_field})\n\n" + _labels(build))
    parts += quality_sections(build.quality)
    parts.append("## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS))
    return "\n\n".join(parts) + "\n"


def _funnel(funnel: tuple[FunnelStage, ...]) -> str:
    rows = ["| stage | entered | left | dropped because |", "|---|---:|---:|---|"]
    for stage in funnel:
        why = ", ".join(f"{_cell(reason)}: {count}" for reason, count in stage.reasons.items()) or "–"  # noqa: RUF001
        rows.append(f"| {stage.stage} | {stage.entered} | {stage.left} | {why} |")
    return "\n".join(rows)


def _cleaning(counts: dict[str, int]) -> str:
    told = [f"- {meaning}: {counts[name]}" for name, meaning in CLEANED.items() if name in counts]
    return "\n".join(told) or "Nothing was cut out of a ticket, and none addresses the model."


def _personal_data(spec: ProjectSpec, found: dict[str, int]) -> str:
    policy = spec.dataset.pii
    if policy.action == "keep":
        return "The project keeps personal data as it is."
    verb = {
        "redact": "Replaced by placeholders",
        "pseudonymise": "Replaced by stand-ins that agree within a group",
        "reject": "Found, and its records dropped",
    }[policy.action]
    wanted = [*policy.entities, *(pattern.name for pattern in policy.patterns)]
    listed = ", ".join(f"{entity}: {count}" for entity, count in found.items()) or "nothing"
    return f"Looked for {', '.join(wanted)}. {verb}: {listed}."


def _labels(build: Build) -> str:
    train, holdout = label_counts(build.split.train), label_counts(build.split.holdout)
    rows = ["| label | train | holdout |", "|---|---:|---:|"]
    for label in sorted(train.keys() | holdout.keys()):
        rows.append(f"| {_cell(label)} | {train.get(label, 0)} | {holdout.get(label, 0)} |")
    few = sorted(label for label, count in train.items() if count < FEW_EXAMPLES)
    if few:
        rows.append(f"\nFewer than {FEW_EXAMPLES} examples to train on: {', '.join(few)}.")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
