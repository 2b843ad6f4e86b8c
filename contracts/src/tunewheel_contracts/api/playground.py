"""One prompt, answered by several models of a project, with and without passages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tunewheel_contracts.api.documents import FoundPassage
from tunewheel_contracts.fields import Frozen, Strict

Contestant = Literal["base", "champion", "candidate"]
CONTESTANTS: tuple[Contestant, ...] = ("base", "champion", "candidate")
LONGEST_PROMPT = 8_000


class PlaygroundOrder(Strict):
    """The body of a request for answers. Each answer costs as much as a request to the gateway."""

    prompt: Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT)]
    models: Annotated[tuple[Contestant, ...], Field(min_length=1, max_length=3)] = CONTESTANTS
    candidate: Annotated[str | None, Field(min_length=1, max_length=256)] = None
    """Id of the model that is the candidate. Default: the one in a canary or shadow stage, else the newest
    model that was neither rejected nor retired."""
    passages: Literal["with", "without", "both"] = "both"
    max_tokens: Annotated[int | None, Field(ge=1, le=4_096)] = None
    """Most tokens of an answer. Default: as the model is served."""

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("is blank; write what a user would ask")
        return prompt


class SourceOfAnswer(Frozen):
    """A section of a document in an answer's prompt."""

    document: str
    heading: str
    version: str


class PlaygroundAnswer(Frozen):
    """What one model answered, or why it did not."""

    who: Contestant
    model_id: str
    passages: bool
    """Whether the prompt got passages, where any were found."""
    text: str = ""
    sources: tuple[SourceOfAnswer, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    """From the console's request to the whole answer."""
    finish_reason: str | None = None
    violations: tuple[str, ...] = ()
    """The broken requirements of the task, as in ``inference.completed``."""
    format_valid: bool | None = None
    """Whether it fits the task's output schema and rules. None: there is no whole answer."""
    refusal: str | None = None
    """Why there is no answer."""


class Playground(Frozen):
    project: str
    prompt: str
    answers: tuple[PlaygroundAnswer, ...]
    """The answers without passages first; of each, base, champion, candidate."""
    left_out: dict[str, str] = {}
    """Why a contestant, or ``passages``, is left out."""
    found: tuple[FoundPassage, ...] = ()
    """The passages that were found for the prompt and sent."""
