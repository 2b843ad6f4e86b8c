"""The sections of the data card about documents, passages and token counts."""

from __future__ import annotations

from tunewheel_contracts.formats.dataset import ExampleFormat
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.examples.templates import VERIFIED
from tunewheel_curate.passages.adding import Shown
from tunewheel_curate.pipeline import Build

MADE = {
    ExampleFormat.CHUNK: "passages",
    ExampleFormat.QUESTION: "questions with answers",
    ExampleFormat.CODE_SUMMARY: "summaries of code",
    ExampleFormat.CODE_FUNCTION: "code from summaries",
}


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
    if (teacher := build.outside.teacher) is not None:
        parts.append(
            f"The teacher {teacher.model} answered for {teacher.answered} of {teacher.sections} sections; "
            "what was not grounded in its section was dropped. The others were asked extractively."
        )
    return "\n\n".join(parts)


def tokens_section(build: Build, spec: ProjectSpec) -> str:
    """Return the section about token counts and about the check with the chat template."""
    use = build.outside.tokens.use
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
