"""What examples are made of a project's documents, and how tickets are cleaned."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import Strict, Text

Tokens = Annotated[int, Field(ge=16, le=8192)]


class ChunkFormat(Strict):
    """Passages of documents, each asked for by its place."""

    enabled: bool = False
    max_tokens: Tokens = 256
    """Longest passage, in the model's own tokens. Tables and code are cut only where one alone is longer."""
    overlap: Annotated[int, Field(ge=0, le=1024)] = 0
    """Tokens of prose, at most, that a passage repeats from the one before it below the same heading."""

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
    """Up to and including ``/v1``; without credentials. Curate asks only hosts that its operator lists in
    ``TUNEWHEEL_SPEC_HOSTS``."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    api_key_env: Annotated[str, StringConstraints(pattern=r"^TUNEWHEEL_TEACHER_[A-Z0-9_]{1,64}$")] | None = (
        None
    )
    """The variable of curate's environment that holds the key. The prefix keeps a spec from asking for any
    other secret; ``TUNEWHEEL_SPEC_HOSTS`` lists beside each host the keys that may go there."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    min_grounding: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Least share of an answer's words that its section must hold; what says more is dropped."""


class QuestionFormat(Strict):
    """Questions about sections of documents, with answers."""

    enabled: bool = False
    method: Literal["extractive", "teacher"] = "extractive"
    """``extractive`` asks by the heading and answers in the section's own sentences: it needs no model, and
    is weaker."""
    per_section: Annotated[int, Field(ge=1, le=10)] = 2
    """Pairs that a teacher is asked for; the extractive method makes one."""
    max_answer_tokens: Tokens = 192
    """Longest answer, in the model's own tokens."""
    teacher: TeacherSpec | None = None
    when_unavailable: Literal["extractive", "wait"] = "extractive"
    """Without the teacher, sections it never answered for are asked extractively in this version, or the
    version waits for it: some minutes, then its request is rejected."""

    @model_validator(mode="after")
    def _has_its_teacher(self) -> Self:
        if self.enabled and self.method == "teacher" and self.teacher is None:
            raise inconsistent("teacher", "is missing, but method is teacher; give its base_url and model")
        return self


class CodeFormat(Strict):
    """A function's docstring from its code, and its code from the docstring."""

    enabled: bool = False


class DocumentFormats(Strict):
    """Examples made of documents. All off: documents are kept, and nothing is made of them."""

    system_prompt: Annotated[Text, Field(min_length=1)] = "You know this organisation's documents."
    """Theirs instead of the task's: they do not answer in the task's form."""
    chunks: ChunkFormat = ChunkFormat()
    questions: QuestionFormat = QuestionFormat()
    code: CodeFormat = CodeFormat()

    @property
    def enabled(self) -> bool:
        return self.chunks.enabled or self.questions.enabled or self.code.enabled


class FormatsSpec(Strict):
    documents: DocumentFormats = DocumentFormats()


class CleaningSpec(Strict):
    """What is cut out of tickets before anything is learnt from them, and which answers are too bad."""

    quoted_history: bool = True
    signatures: bool = True
    greetings: bool = True
    disclaimers: bool = True
    truncated_answers: bool = True
    """Drop answers whose free text stops in mid-sentence, or inside a code block: answers that are one, and
    the texts in structured ones."""
    min_answer_characters: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Letters and digits that an answer's free text has at least; of a structured answer all its texts
    together, where any is not blank."""
