"""A project's settings for examples made of documents, and for the cleaning of tickets."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Strict, Text

Tokens = Annotated[int, Field(ge=16, le=8192)]


class ChunkFormat(Strict):
    """Makes examples of passages of documents; the prompt asks for a passage by its position."""

    enabled: bool = False
    max_tokens: Tokens = 256
    """Longest passage, in the model's own tokens. A table or a piece of code is cut only if it is longer than
    this."""
    overlap: Annotated[int, Field(ge=0, le=1024)] = 0
    """Most tokens of prose that a passage repeats from the previous passage below the same heading."""

    @model_validator(mode="after")
    def _moves_on(self) -> Self:
        if self.overlap * 2 > self.max_tokens:
            raise inconsistent(
                "overlap", f"{self.overlap} is more than half of max_tokens {self.max_tokens}; lower it"
            )
        return self


class TeacherSpec(Strict):
    """A model behind an OpenAI-compatible endpoint that writes questions and answers about a section."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=512)]
    """URL of the API, up to and including ``/v1``, without credentials. Its host must be listed by curate's
    operator in ``TUNEWHEEL_SPEC_HOSTS``."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    api_key_env: Annotated[str, StringConstraints(pattern=r"^TUNEWHEEL_TEACHER_[A-Z0-9_]{1,64}$")] | None = (
        None
    )
    """The variable of curate's environment that holds the API key. The prefix keeps a spec from naming any
    other secret. ``TUNEWHEEL_SPEC_HOSTS`` lists the keys that may be sent to each host."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    min_grounding: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Least share of an answer's words that must occur in its section. Other answers are dropped."""


class QuestionFormat(Strict):
    """Makes questions about sections of documents, with answers."""

    enabled: bool = False
    method: Literal["extractive", "teacher"] = "extractive"
    """``extractive``: the question is made of the heading, the answer of the section's own sentences. It
    needs no model and is weaker. ``teacher``: a model writes both."""
    per_section: Annotated[int, Field(ge=1, le=10)] = 2
    """Number of pairs that a teacher is asked for. The extractive method makes one pair."""
    max_answer_tokens: Tokens = 192
    """Longest answer, in the model's own tokens."""
    teacher: TeacherSpec | None = None
    when_unavailable: Literal["extractive", "wait"] = "extractive"
    """If the teacher is unavailable. ``extractive``: sections without an earlier answer use the extractive
    method in this version. ``wait``: the version waits for the teacher for some minutes, then its request is
    rejected."""

    @model_validator(mode="after")
    def _has_its_teacher(self) -> Self:
        if self.enabled and self.method == "teacher" and self.teacher is None:
            raise inconsistent("teacher", "is missing, but method is teacher; give its base_url and model")
        return self


class CodeFormat(Strict):
    """Makes examples of functions: the docstring from the code, and the code from the docstring."""

    enabled: bool = False


class DocumentFormats(Strict):
    """Which examples are made of documents. With all off, documents are stored but give no examples."""

    system_prompt: Annotated[Text, Field(min_length=1)] = "You know this organisation's documents."
    """System prompt of these examples. The task's prompt is not used, because they do not have the task's
    form."""
    chunks: ChunkFormat = ChunkFormat()
    questions: QuestionFormat = QuestionFormat()
    code: CodeFormat = CodeFormat()

    @property
    def enabled(self) -> bool:
        return self.chunks.enabled or self.questions.enabled or self.code.enabled


class FormatsSpec(Strict):
    documents: DocumentFormats = DocumentFormats()


class CleaningSpec(Strict):
    """What is removed from tickets before they become examples, and which answers are dropped."""

    quoted_history: bool = True
    signatures: bool = True
    greetings: bool = True
    disclaimers: bool = True
    truncated_answers: bool = True
    """Drop answers whose free text ends in mid-sentence or inside a code block. In a structured answer the
    texts in it are checked."""
    min_answer_characters: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Fewest letters and digits in an answer's free text. In a structured answer its texts count together, if
    any of them is not blank."""
