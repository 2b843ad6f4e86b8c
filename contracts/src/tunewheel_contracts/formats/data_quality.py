"""What a project says about duplicates, labels, personal data and contamination of its dataset."""

from __future__ import annotations

import operator
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import ValidationError

from tunewheel_contracts.errors import InvalidSpec, inconsistent
from tunewheel_contracts.fields import RelativePath, Sha256, Slug, Strict, Text, linear_engine


class PiiPattern(Strict):
    """Personal data of the project's own kind, such as customer numbers."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,39}$")]
    """What the placeholder says: CUSTOMER_ID becomes <CUSTOMER_ID>."""
    regex: Annotated[str, Field(min_length=1, max_length=512)]
    """In the syntax of Rust's ``regex``, which matches in linear time whatever the text: no look-around and
    no back-references."""

    @model_validator(mode="after")
    def _linear(self) -> Self:
        try:
            engine = linear_engine(self.regex)
        except ValueError as cause:
            reason = f"cannot be matched in linear time ({cause}); use no look-around or back-reference"
            raise inconsistent("regex", reason) from cause
        try:
            engine.validate_python("")
        except ValidationError:
            return self
        raise inconsistent("regex", "matches the empty text; ask for at least one character")


class NamedEntities(Strict):
    """Names, which no pattern finds: a spaCy pipeline that is installed beside curate looks for them."""

    pipeline: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}_[a-z0-9_]{1,60}$")]
    """The name of its package, such as en_core_web_lg."""
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][0-9A-Za-z.]{0,30}$")]
    """Of the package: another version may find other names, and make other datasets of the same records."""
    entities: Annotated[
        tuple[Literal["PERSON", "LOCATION", "ORGANIZATION", "NRP"], ...], Field(min_length=1)
    ] = ("PERSON", "LOCATION")
    """NRP: nationalities, religious and political groups."""


class PiiPolicy(Strict):
    action: Literal["redact", "pseudonymise", "reject", "keep"] = "redact"
    """redact: <EMAIL_ADDRESS>. pseudonymise: <EMAIL_ADDRESS_7c1f>, the same for the same value in one group.
    reject: drop the record."""
    entities: tuple[str, ...] = (
        "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN",
    )  # fmt: skip
    patterns: Annotated[tuple[PiiPattern, ...], Field(max_length=50)] = ()
    named_entities: Annotated[NamedEntities | None, Field(exclude_if=operator.not_)] = None
    """null: names of people and places stay where they are."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for name in (pattern.name for pattern in self.patterns):
            if self.placeholders.count(name) > 1:
                raise inconsistent("patterns", f"name {name!r} twice; give each pattern a name of its own")
        return self

    @property
    def placeholders(self) -> tuple[str, ...]:
        """All that may stand in a placeholder."""
        named = () if self.named_entities is None else self.named_entities.entities
        return (*self.entities, *(pattern.name for pattern in self.patterns), *named)


class SemanticDuplicates(Strict):
    """Inputs that say the same in other words, by static embeddings. Weaker than it sounds: read the
    measurements before dropping by it."""

    enabled: bool = False
    threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.9
    """Cosine similarity from which two inputs count as one."""
    action: Literal["report", "drop"] = "report"
    """drop: all but one of those that say the same, where their answers say the same too."""


BENCHMARKS = "benchmarks/"
"""The folder of the object store that benchmarks lie in: elsewhere lies what is another project's too."""


class Benchmark(Strict):
    """Texts that a model will be judged by and must not have been trained on."""

    name: Slug
    path: RelativePath | None = None
    """JSON Lines below ``benchmarks/`` of the object store: a text per line, or an object with ``field``."""
    field: Annotated[str, Field(min_length=1, max_length=128)] = "text"
    sha256: Sha256 | None = None
    """Pins the file; without it the version says what it hashed to."""
    texts: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()
    """The texts themselves, where they are few."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (not self.texts):
            raise inconsistent("path", "and texts: give one of the two")
        return self

    def check_place(self, field: str) -> None:
        """Refuse a file that lies elsewhere in the store. Specs that are on the log stay valid.

        Raises:
            InvalidSpec: with ``field``.
        """
        if self.path is not None and not self.path.startswith(BENCHMARKS):
            raise InvalidSpec(field=field, reason=f"{self.path} is not below {BENCHMARKS}; move it there")


class ContaminationPolicy(Strict):
    """What to do with examples that overlap benchmarks or eval's regression set."""

    action: Literal["drop", "report"] = "drop"
    """drop: they do not train. Held-out ones are reported only: nobody learns from those."""
    words: Annotated[int, Field(ge=5, le=50)] = 13
    """An example that holds a run of this many words of a benchmark overlaps it. 13 is GPT-3's; in a narrow
    domain fewer words are a phrase that everybody uses."""


class LabelReview(Strict):
    """Labels that a classifier trained on the other examples doubts, listed for people to look at."""

    suspects: bool = True
    min_examples: Annotated[int, Field(ge=20)] = 500
    """Fewer labelled examples than this teach a classifier too little to doubt anybody."""
    max_examples: Annotated[int, Field(ge=20)] = 5_000
    """Of more, so many are looked at."""
