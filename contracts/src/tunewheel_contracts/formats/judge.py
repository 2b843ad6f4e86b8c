"""The judge: a model that compares two answers to one question, for the metric ``judged``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from tunewheel_contracts.fields import FiniteFloat, Fraction, Frozen, PositiveInt, Sha256, Strict, Text
from tunewheel_contracts.identity import content_sha256

JUDGED = "judged"
"""The name of the metric."""
FORM = 1
"""Increase this when the message to the judge changes: its answers are then those of another judge."""
PROMPT = """\
You compare two answers to the same question. Prefer the answer that agrees with the expert's answer in what \
it says: facts, numbers, conditions, and what it asks to do. A longer or politer answer is not better for \
that. If both are as good, or as wrong, say same."""


class JudgeSpec(Strict):
    """A model behind an OpenAI-compatible endpoint that compares the candidate's answers with the champion's,
    or with the base's where there is no champion. People's reviews measure how far it can be trusted."""

    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$", max_length=512)]
    """URL of the API, up to and including ``/v1``, without credentials. Its host must be listed by the
    operator of eval and curate in ``TUNEWHEEL_SPEC_HOSTS``."""
    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    api_key_env: Annotated[str, StringConstraints(pattern=r"^TUNEWHEEL_JUDGE_[A-Z0-9_]{1,64}$")] | None = None
    """The variable of eval's environment that holds the API key. The prefix keeps a spec from naming any
    other secret. ``TUNEWHEEL_SPEC_HOSTS`` lists the keys that may be sent to each host."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    prompt: Annotated[Text, Field(min_length=1, max_length=20_000)] = PROMPT
    """What makes an answer better. The form of the reply is added to it."""
    min_reviewed: PositiveInt = 20
    """Fewest reviewed pairs by which the judge's error is measured. With fewer a criterion on ``judged`` is
    undecided."""

    @property
    def sha256(self) -> str:
        """Hash of model and prompt. The same model may be asked elsewhere."""
        return content_sha256({"model": self.model, "prompt": self.prompt, "form": FORM})


class JudgeReport(Frozen):
    """How the judge compared, and how far people agree with it."""

    judge: Sha256
    """``JudgeSpec.sha256``."""
    model: str
    against: str
    """Role of the other contestant: ``champion`` or ``base``."""
    rows: int
    """Number of held-out rows."""
    equal: int
    """Rows with two equal answers. They are ties that nobody is asked about."""
    unread: int
    """Rows where a reply of the judge could not be read. They count as ties."""
    preference: FiniteFloat
    """Share of rows on which the judge prefers the candidate, a tie counting half: not corrected."""
    reviewed: int
    """Reviewed pairs of the project by which the judge's error was measured."""
    agreement: Fraction | None
    """Share of the reviewed pairs on which judge and people say the same; null: there are no such pairs."""
    changed: int | None = None
    """Of the pairs that this judge compared before and was asked about again, how many it now compares
    otherwise, if these are too many for the same model; null: it is the same."""
