"""Counts the tokens of surveyed examples: by the base model's tokenizer, or about if that is not here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunewheel_planner.plan import DatasetStats

from tunewheel_cli.datasets.statistics import (
    CHARACTERS_PER_TOKEN,
    Measured,
    NoTokenizer,
    count_tokens,
    estimate_tokens,
    local_tokenizer,
)

if TYPE_CHECKING:
    from tunewheel_contracts.formats.spec import TaskSpec

    from tunewheel_cli.surveying.survey import Survey


def measure(
    survey: Survey, base_model: str | None, *, task: TaskSpec | None = None, system_prompt: str = ""
) -> Measured:
    """Return the token counts of all examples of ``survey``, from its sample. ``base_model`` None: about.
    ``task``: of the spec; without a spec ``system_prompt`` is that of the task.

    Raises ValueError: there are no examples.
    """
    if not survey.examples:
        raise ValueError("a survey without examples has no tokens")
    system_prompt = task.system_prompt if task is not None else system_prompt
    first = [{"role": "system", "content": system_prompt}] if system_prompt else []
    sample = [[*first, *messages] for messages in survey.conversations]
    longest = [[*first, *messages] for *_, messages in survey.longest]
    reason = f"{CHARACTERS_PER_TOKEN} characters are taken for a token"
    if base_model is not None:
        from tunewheel_basemodel.chat import with_variables

        try:
            variables = task.chat_template_kwargs if task is not None else {}
            tokenizer = with_variables(local_tokenizer(base_model), variables)
            rows: list[dict[str, Any]] = [{"messages": messages} for messages in [*sample, *longest]]
            counted = count_tokens(rows[: len(sample)], tokenizer)
            most = count_tokens(rows[-len(longest) :], tokenizer).longest
            return Measured(_scaled(counted, survey, most), base_model)
        except NoTokenizer as error:
            reason = str(error)
    counted = estimate_tokens(sample)
    return Measured(_scaled(counted, survey, estimate_tokens(longest).longest), None, reason)


def _scaled(counted: DatasetStats, survey: Survey, longest: int) -> DatasetStats:
    scale = survey.examples / counted.examples
    return replace(
        counted,
        examples=survey.examples,
        tokens=round(scale * counted.tokens),
        learnt=round(scale * counted.learnt),
        longest=max(longest, counted.longest),
    )
