"""The data card: what a person should know before trusting a dataset version."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from tunewheel_contracts.formats.dataset import ExampleFormat, ExpectationResult, FunnelStage
from tunewheel_contracts.formats.quarantine import SetAside
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Trust

from tunewheel_curate.duplicates.questions import ANSWERED_OTHERWISE
from tunewheel_curate.examples.templates import VERIFIED
from tunewheel_curate.labels.quality import quality_sections
from tunewheel_curate.lineage import SourceCount
from tunewheel_curate.passages.adding import Shown
from tunewheel_curate.pipeline import Build, label_counts
from tunewheel_curate.similarity.containment import LONG_WORDS

MADE = {
    ExampleFormat.CHUNK: "passages",
    ExampleFormat.QUESTION: "questions with answers",
    ExampleFormat.CODE_SUMMARY: "summaries of code",
    ExampleFormat.CODE_FUNCTION: "code from summaries",
}
FEW_EXAMPLES = 10
NOTHING = "–"  # noqa: RUF001
NO_DOCUMENTS = "Documents (SOPs) are kept in the record table; no examples are made from them."
LIMITS = (
    "Records without an answer are kept in the record table and not used.",
    "Two inputs that differ in one word can be near-duplicates; of such a pair with equal answers one is "
    "kept.",
    "An answer that is well-formed and wrong, and whose question nobody else answered, is not found.",
)
PATTERNS_ALONE = (
    "Personal data is found by its form, and names by lists of names: about seven in eight. The pipeline "
    "of `dataset.pii.named_entities` finds more. Other names stay, and anything else without a form."
)
NAMED_ENTITIES = (
    "Personal data is found by its form, and names also by the pipeline of `dataset.pii.named_entities`. "
    "What neither finds stays."
)
MEMORY = (
    "What was ever held out is never trained on, in this version or a later one: the questions, their "
    "sources and their groups are remembered as {marks}."
)
HELD_OUT = (
    "The holdout is stratified: {part:.0%} of every label, as nearly as whole groups and what earlier "
    "versions held out allow."
)
KEYED = " They are keyed by the secret of who built this: without it none confirms a guess."
NEGATIVES = (
    "{count} answers that users rated down, with nothing to prefer to them: in `negatives.parquet`. What "
    "became of the others stands in the funnel."
)
OTHERWISE = (
    "{count} records ask nearly the same as another record. They stay, because the answers differ by more "
    "than case, punctuation or a figure of the question."
)
UNCHECKED = (
    "> **Caution.** No expert validated {count} of the {of} held-out answers, so every verdict on this "
    "version says how far a model agrees with unchecked answers. Publish answers with `validated_by`; a file "
    "that an expert has read, by `tunewheel publish FILE --project {project} --validated-by NAME`."
)
LOWERED = (
    "{count} answers name an expert who validated them, but whoever sent them may not vouch for experts. "
    "They have the trust that their senders have; see the role `expert` and `dataset.trust`."
)
IN_TRAINING = (
    "{found} of {asked} held-out answers of {words} words or more stand in the text of training rows, such "
    "as passages of documents. A model may know them by heart: the scorecard shows these rows apart."
)
SET_ASIDE = {
    SetAside.FLOOD: "are more than `dataset.limits` lets one caller or customer add",
    SetAside.TAKEOVER: "would replace a record that is trusted more, or that another caller published",
    SetAside.CONFLICT: "give a question another label than nearly everybody else",
    SetAside.INJECTION: "address the model (prompt injection)",
    SetAside.CORRECTION: "are corrections by end users (`dataset.corrections`)",
}
CLEANED = {
    "quoted_history": "tickets whose quoted history was cut",
    "signatures": "tickets whose signature was cut",
    "greetings": "tickets whose greeting was cut",
    "disclaimers": "tickets whose legal notice was cut",
    "prompt_injection": "records that address the model (prompt injection), marked in lineage",
    "control_tokens": "records with signs of a chat template; kept, broken up, marked in lineage",
}


def data_card(
    dataset_id: str,
    spec: ProjectSpec,
    build: Build,
    *,
    data_docs: str | None = None,
    previous: str | None = None,
    expectations: Sequence[ExpectationResult] = (),
) -> str:
    """Return the card as Markdown. It holds no date, so a version's card always has the same bytes.

    ``data_docs`` is the path of the Data Docs relative to the card, ``previous`` the previous version.
    """
    counts, keyed = build.counts, bool(build.pinned.secret)
    marks = "hashes keyed by the secret of who built this" if keyed else "hashes"
    parts = [
        f"# Dataset {dataset_id}",
        spec.description or f"Examples of the project {spec.project}.",
        f"{counts.records} records gave {counts.examples} examples: {counts.train - counts.replay} to train "
        f"on, {counts.holdout} held out. An example of a group, or much like one, never lies on both sides.",
        f"{MEMORY.format(marks=marks)} "
        + (f"This version follows {previous}." if previous else "This is the first version."),
    ]
    parts[1:1] = [f"> **Caution.** {caution}" for caution in spec.cautions]
    asked = build.split.holdout.filter(pl.col("format") == ExampleFormat.ANSWER.value)
    if unchecked := asked.filter(pl.col("trust") != Trust.EXPERT.value).height:
        parts.insert(1, UNCHECKED.format(count=unchecked, of=asked.height, project=spec.project))
    if build.preliminary:
        parts.insert(1, f"> **Preliminary.** {build.preliminary}")
    if data_docs:
        parts.append("## Expectations\n\n" + _expectations(expectations, data_docs))
    parts.append("## Funnel\n\n" + _funnel(build.funnel))
    if kept := build.figures.get("near_duplicates", {}).get(ANSWERED_OTHERWISE):
        parts.append(OTHERWISE.format(count=kept))
    parts.append("## Sources\n\n" + _sources(build.sources))
    if lowered := _lowered(build):
        parts.append(LOWERED.format(count=lowered))
    if build.quality.quarantined:
        parts.append("## Quarantine\n\n" + _quarantine(build, spec))
    parts.append("## Cleaning\n\n" + _cleaning(build.figures.get("cleaning", {})))
    parts.append("## Personal data\n\n" + _personal_data(spec, build.redactions, build.pinned.secret))
    if spec.task.label_field is not None:
        parts.append(f"## Labels ({spec.task.label_field})\n\n" + _labels(build, spec))
    parts += quality_sections(build.quality)
    if build.counts.answers_in_training:
        found, asked = build.counts.answers_in_training, len(build.answers_in_training)
        parts.append("## Answers\n\n" + IN_TRAINING.format(found=found, asked=asked, words=LONG_WORDS))
    if build.preferences is not None:
        parts.append("## Preferences\n\n" + _preferences(build))
    if build.negatives is not None:
        parts.append("## Negatives\n\n" + NEGATIVES.format(count=build.counts.negatives))
    if build.replayed is not None:
        parts.append("## Replay\n\n" + _replay(build))
    documents = spec.dataset.formats.documents.enabled
    if documents:
        parts.append("## Documents\n\n" + documents_section(build))
    if build.shown is not None:
        parts.append("## Passages\n\n" + passages_section(build.shown))
    parts.append("## Tokens\n\n" + tokens_section(build, spec))
    found = NAMED_ENTITIES if spec.dataset.pii.named_entities is not None else PATTERNS_ALONE
    limits = (found, *LIMITS) if documents else (NO_DOCUMENTS, found, *LIMITS)
    parts.append("## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits))
    return "\n\n".join(parts) + "\n"


def _lowered(build: Build) -> int:
    """Return how many examples name an expert and are trusted less: their senders may not vouch for one."""
    stated = build.lineage.filter(
        pl.col("validated_by").is_not_null() & pl.col("kind").is_in(("ticket", "example"))
    )
    less = pl.col("example_id").is_in(stated["example_id"].implode()) & (
        pl.col("trust") != Trust.EXPERT.value
    )
    return sum(side.filter(less).height for side in (build.split.train, build.split.holdout))


def _expectations(results: Sequence[ExpectationResult], data_docs: str) -> str:
    """Return how many expectations were met, and those that were not."""
    met = sum(one.met for one in results)
    lines = [f"{met} of {len(results)} expectations are met; all stand in the [Data Docs]({data_docs})."]
    lines += [
        f"- {_cell(one.expectation)}: {_cell(one.observed)} (action: {one.action})"
        for one in results
        if not one.met
    ]
    return "\n".join(lines)


def _funnel(funnel: tuple[FunnelStage, ...]) -> str:
    rows = ["| stage | entered | left | dropped because |", "|---|---:|---:|---|"]
    for stage in funnel:
        why = ", ".join(f"{_cell(reason)}: {count}" for reason, count in stage.reasons.items()) or NOTHING
        rows.append(f"| {stage.stage} | {stage.entered} | {stage.left} | {why} |")
    return "\n".join(rows)


def _quarantine(build: Build, spec: ProjectSpec) -> str:
    lines = [f"{build.waiting.height} records wait for a person, and neither train nor are held out:", ""]
    for reason, count in build.quality.quarantined.items():
        found = build.waiting.filter(pl.col("reason") == reason)
        origins = (
            found["origin"]
            .drop_nulls()
            .value_counts(sort=True)
            .sort("count", "origin", descending=[True, False])
        )
        most = [f"{name} ({sent})" for name, sent in origins.head(3).iter_rows()]
        whom = f", most from {', '.join(map(_cell, most))}" if most else ""
        lines.append(f"- {reason}: {count} {SET_ASIDE[SetAside(reason)]}{whom}.")
    command = f"--project {spec.project} --reason {next(iter(build.quality.quarantined))}"
    lines += [
        "",
        f"`tunewheel quarantine list {command}` shows them; `tunewheel quarantine release {command}` lets "
        "the next version use them, and `refuse` in place of `release` keeps them out.",
    ]
    return "\n".join(lines)


def _cleaning(counts: dict[str, int]) -> str:
    lines = [f"- {meaning}: {counts[name]}" for name, meaning in CLEANED.items() if name in counts]
    return "\n".join(lines) or "Nothing was cut out of a ticket, and none addresses the model."


def _sources(sources: tuple[SourceCount, ...]) -> str:
    rows = ["| kind | source | licence | records | in this version |", "|---|---|---|---:|---:|"]
    for one in sources:
        cells = (_cell(one.source) or NOTHING, _cell(one.licence) or "not stated")
        rows.append(f"| {one.kind} | {cells[0]} | {cells[1]} | {one.records} | {one.used} |")
    return "\n".join(rows)


def _personal_data(spec: ProjectSpec, found: dict[str, int], secret: str) -> str:
    policy = spec.dataset.pii
    if policy.action == "keep":
        return "The project keeps personal data as it is."
    verb = {
        "redact": "Replaced by placeholders",
        "pseudonymise": "Replaced by stand-ins that agree within a group",
        "reject": "Found, and its records dropped",
    }[policy.action]
    wanted = [*policy.wanted, *(pattern.name for pattern in policy.patterns)]
    listed = ", ".join(f"{entity}: {count}" for entity, count in found.items()) or "nothing"
    keyed = KEYED if policy.action == "pseudonymise" and secret else ""
    return f"Looked for {', '.join(wanted)}. {verb}: {listed}.{keyed}"


def _labels(build: Build, spec: ProjectSpec) -> str:
    train, holdout = label_counts(build.split.train), label_counts(build.split.holdout)
    rows = [HELD_OUT.format(part=spec.dataset.holdout_fraction), ""]
    rows += ["| label | train | holdout | held out |", "|---|---:|---:|---:|"]
    for label in sorted(train.keys() | holdout.keys()):
        both = train.get(label, 0), holdout.get(label, 0)
        rows.append(f"| {_cell(label)} | {both[0]} | {both[1]} | {both[1] / sum(both):.1%} |")
    missing = sorted(train.keys() - holdout.keys())
    if missing:
        rows.append(f"\nNone held out, so nothing tells how well it was learnt: {', '.join(missing)}.")
    few = sorted(label for label, count in train.items() if count < FEW_EXAMPLES)
    if few:
        rows.append(f"\nFewer than {FEW_EXAMPLES} examples to train on: {', '.join(few)}.")
    return "\n".join(rows)


def _preferences(build: Build) -> str:
    return (
        f"{build.counts.preferences} pairs of an answer to prefer and one to avoid, all of questions on the "
        "training side. What became of the other answers to avoid stands in the funnel."
    )


def _replay(build: Build) -> str:
    assert build.replayed is not None
    use = build.replayed.use
    return (
        f"{use.sampled} of {use.available} conversations of {_cell(use.source)} (licence: "
        f"{use.license or 'not stated'}; sha256 {use.sha256}) are {use.share:.1%} of the training rows. None "
        "is held out, and none resembles an example of the project or a question of a benchmark; what did "
        "stands in the funnel. They went through no redaction."
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def documents_section(build: Build) -> str:
    """Return the section about examples made of documents: how many of each kind, and how reliable they
    are."""
    made = [
        f"- {text}: {build.counts.formats[name]}"
        for name, text in MADE.items()
        if name in build.counts.formats
    ]
    parts = ["\n".join(made) or "No example came of the documents; the funnel says why."]
    parts.append(
        "They train only, under a system prompt of their own, and are never held out: neither the answers' "
        "schema nor their labels apply to them. Nobody validated them (trust `unverified`)."
    )
    if build.extractive:
        parts.append(
            f"{build.extractive} questions are extractive: asked by the heading, answered in the section's "
            "first sentences. That is weaker than questions as people ask them."
        )
    if (teacher := build.pinned.teacher) is not None:
        parts.append(
            f"The teacher {teacher.model} answered for {teacher.answered} of {teacher.sections} sections; "
            "what was not grounded in its section was dropped. The others were asked extractively."
        )
    return "\n\n".join(parts)


def tokens_section(build: Build, spec: ProjectSpec) -> str:
    """Return the section about token counts and about the check with the chat template."""
    use = build.pinned.tokens.use
    if use.sha256 is None:
        return (
            f"Estimated at four characters each: {use.reason}. Limits in tokens are rough, and no "
            "conversation went through the chat template."
        )
    whole = sum(figures.get(VERIFIED, 0) for figures in build.figures.values())
    return (
        f"Counted by the tokenizer of {spec.base_model} (sha256 {use.sha256}). {whole} conversations went "
        "through its chat template and came back whole, with the mask on the assistant's words alone."
    )


def passages_section(shown: Shown) -> str:
    """Return the section about passages in training prompts."""
    use = shown.use
    asked = use.gold + use.distractors_only + use.without
    parts = [
        f"Of {asked} prompts that train, {use.gold} hold the passage that answers beside others, "
        f"{use.distractors_only} only others, and {use.without} no passage. Held-out prompts hold none."
    ]
    if not shown.passages:
        parts.append(f"The index {shown.index_id} holds no passage: the project has no documents yet.")
    else:
        parts.append(
            f"They come from the index {shown.index_id}, which holds {shown.passages}. {use.left_out} of "
            "them may not train: their document was taken back or is not among this version's records, or "
            "they hold a held-out question, one of a benchmark, or a control token."
        )
    return "\n\n".join(parts)
