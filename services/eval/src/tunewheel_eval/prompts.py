"""Turns items into token ids: the prompt of a contestant, and the answers whose likelihood is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tunewheel_basemodel.sampling import Sampling
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage
from tunewheel_contracts.formats.fingerprint import PROMPTS, RECORDED
from tunewheel_contracts.formats.regression_items import MAX_NEW_TOKENS, RegressionItem
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_retrieval.hits import Hit
from tunewheel_retrieval.prompts import context_of, with_context, without_last

from tunewheel_eval.job import WithPassages
from tunewheel_eval.measurement import SkippedRow, SkipReason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from tunewheel_generation.constraint import Grammar

Messages = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Prompt:
    """``context``: token ids up to the start of the answer. ``answers``: token ids of each answer whose
    likelihood is computed. ``max_new_tokens`` 0: nothing is generated."""

    key: str
    name: str
    context: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    """How the answer is decoded; greedy by default."""
    hits: tuple[Hit, ...] = ()
    """The hits whose passages it holds."""
    cut_at: str = ""
    """See ``ContestantJob.cut_at``."""
    grammar: Grammar | None = None
    """The grammar that constrains the answer."""
    want_logprobs: bool = False
    """Whether the log-probabilities of the answer are measured."""
    top_logprobs: int = 0
    """How many of the likeliest first tokens are measured."""

    @property
    def longest(self) -> int:
        """The most positions that the prompt can need."""
        return len(self.context) + max([self.max_new_tokens, *(len(answer) for answer in self.answers)])


def example_prompt(
    tokenizer: PreTrainedTokenizerBase, example: ChatExample, *, key: str, max_output_tokens: int
) -> Prompt:
    """Return the conversation up to the expert's answer, and that answer; see ``unanswered``."""
    messages = [{"role": message.role, "content": message.content} for message in example.messages]
    from tunewheel_basemodel.chat import render

    asked = render(tokenizer, messages[:-1], True)
    answer = _answer_text(tokenizer, messages, asked)
    return Prompt(
        key=key,
        name=f"example {example.example_id}",
        context=_ids(tokenizer, asked),
        answers=(_ids(tokenizer, answer),),
        max_new_tokens=max_output_tokens,
    )


def with_hits(example: ChatExample, spec: RetrievalSpec, hits: Sequence[Hit]) -> ChatExample:
    """Return ``example`` with the passages of ``hits`` in its prompt, written as the gateway does."""
    *before, answer = example.messages
    messages = [{"role": one.role, "content": one.content} for one in before]
    prompt = with_context(messages, context_of(spec, hits))
    return example.model_copy(update={"messages": (*map(ChatMessage.model_validate, prompt), answer)})


def fitting_prompt(
    tokenizer: PreTrainedTokenizerBase,
    asked: WithPassages,
    spec: RetrievalSpec,
    *,
    key: str,
    max_output_tokens: int,
    longest: int | None,
) -> Prompt:
    """Return the prompt of an example with its best-ranked passages, as many as fit into a context of
    ``longest`` tokens. If not even one fits, see ``too_long``."""
    hits = asked.hits
    while True:
        example = with_hits(asked.example, spec, hits)
        made = example_prompt(tokenizer, example, key=key, max_output_tokens=max_output_tokens)
        prompt = replace(made, hits=hits)
        fewer = without_last(spec, hits)
        if fewer is None or too_long(prompt, longest) is None:
            return prompt
        hits = fewer


def sampling_of(decoding: Decoding, *, key: str, repeat: int = 0) -> Sampling:
    """Return how the answer to the prompt of ``key`` is sampled.

    The seed is the one that the project names, as for served requests. Otherwise it follows from ``key``, so
    that measuring again gives the same answer. A ``repeat`` has a key of its own; with a project's seed it
    uses one of the seeds after it.
    """
    seed = decoding.seed + repeat if decoding.seed is not None else int(key[:15], 16)
    return Sampling(
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        seed=seed,
        repetition_penalty=decoding.repetition_penalty,
    )


def item_prompt(tokenizer: PreTrainedTokenizerBase, item: RegressionItem) -> Prompt:
    """Return a regression item as a user's message, without the project's system prompt."""
    from tunewheel_basemodel.chat import render

    context = _ids(tokenizer, render(tokenizer, [{"role": "user", "content": item.prompt}], True))
    answers = tuple(_ids(tokenizer, choice) for choice in item.choices or ())
    return Prompt(item.key, f"item {item.item_id}", context, answers, 0 if item.choices else MAX_NEW_TOKENS)


def fingerprint_prompt(tokenizer: PreTrainedTokenizerBase, name: str, *, key: str) -> Prompt | SkippedRow:
    """Return the prompt ``name`` of the fingerprint; or a row, if the model's chat template refuses it."""
    from tunewheel_basemodel.chat import render
    from tunewheel_basemodel.errors import InvalidChat

    try:
        context = _ids(tokenizer, render(tokenizer, PROMPTS[name], True))
    except InvalidChat as error:
        return SkippedRow(key=key, reason=SkipReason.REFUSED, detail=f"fingerprint {name}: {error}")
    return Prompt(key, f"fingerprint {name}", context, (), 1, want_logprobs=True, top_logprobs=RECORDED)


def unanswered(example: ChatExample, *, key: str) -> SkippedRow | None:
    """Return why no contestant can be measured on the example: it does not end with an assistant's answer.
    None: it does."""
    last = example.messages[-1] if len(example.messages) > 1 else None
    if last is not None and last.role == "assistant" and last.content.strip():
        return None
    detail = f"example {example.example_id}, which does not end with an assistant's answer"
    return SkippedRow(key=key, reason=SkipReason.NO_ANSWER, detail=detail)


def too_long(prompt: Prompt, limit: int | None) -> SkippedRow | None:
    """Return why a model with a context of ``limit`` tokens cannot be measured on a prompt; None: it can."""
    if limit is None or prompt.longest <= limit:
        return None
    detail = f"{prompt.name}, which takes {prompt.longest} tokens with its answer; the model holds {limit}"
    return SkippedRow(key=prompt.key, reason=SkipReason.TOO_LONG, detail=detail)


def _answer_text(tokenizer: PreTrainedTokenizerBase, messages: Messages, asked: str) -> str:
    """Return the text that the model should write: the answer and its end of turn, as the template renders
    them."""
    from tunewheel_basemodel.chat import render

    whole = render(tokenizer, messages, False)
    if whole.startswith(asked):
        return whole[len(asked) :].rstrip()
    # The template adds text to the prompt that it leaves out of the history, such as an empty think block.
    return f"{messages[-1]['content']}{tokenizer.eos_token or ''}"


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)
