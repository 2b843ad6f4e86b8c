"""A project's settings for duplicates, labels, personal data and contamination of its dataset."""

from __future__ import annotations

import operator
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator
from pydantic_core import ValidationError

from tunewheel_contracts.errors import InvalidSpec, inconsistent
from tunewheel_contracts.fields import RelativePath, Sha256, Slug, Strict, Text, linear_engine
from tunewheel_contracts.principal import Trust


class TopicTrust(Strict):
    """The most trust that an answer gets if a producer wrote it straight to Kafka, where only the topic's ACL
    decides who may write. For an answer that came over HTTP the roles of the caller decide instead."""

    tickets: Trust = Trust.UNVERIFIED
    """`expert`: a ticket's `validated_by` counts, whoever wrote it to `ticket.published`."""
    examples: Trust = Trust.EXPERT
    feedback: Trust = Trust.CORRECTED


class PiiPattern(Strict):
    """A pattern of personal data that is specific to the project, such as customer numbers."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,39}$")]
    """Name in the placeholder: CUSTOMER_ID gives <CUSTOMER_ID>."""
    regex: Annotated[str, Field(min_length=1, max_length=512)]
    """A pattern in the syntax of Rust's ``regex``, which matches any text in linear time. It has no
    look-around and no back-references."""

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
    """A spaCy pipeline, installed with curate and index, that finds names which the lists
    of `names` lack, and places."""

    pipeline: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}_[a-z0-9_]{1,60}$")]
    """Name of the pipeline's package, such as en_core_web_lg."""
    version: Annotated[str, StringConstraints(pattern=r"^[0-9][0-9A-Za-z.]{0,30}$")]
    """Version of the package. Another version may find other names, and so give another dataset."""
    entities: Annotated[
        tuple[Literal["PERSON", "LOCATION", "ORGANIZATION", "NRP"], ...], Field(min_length=1)
    ] = ("PERSON", "LOCATION")
    """NRP: nationalities, religious and political groups."""


class PiiPolicy(Strict):
    action: Literal["redact", "pseudonymise", "reject", "keep"] = "redact"
    """redact: replace by <EMAIL_ADDRESS>. pseudonymise: replace by <EMAIL_ADDRESS_7c1f>, which is the same
    for the same value in one group. reject: drop the record. keep: change nothing."""
    entities: tuple[str, ...] = (
        "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN",
    )  # fmt: skip
    """Others are national ids and more that presidio finds, such as UK_NINO, ES_NIF or IT_FISCAL_CODE."""
    secrets: Annotated[bool, Field(exclude_if=bool)] = True
    """Replaces keys, tokens and passwords by <SECRET>."""
    names: Annotated[bool, Field(exclude_if=bool)] = True
    """Replaces by <PERSON> names with a known given or family name, and names after words such as "my name
    is"."""
    addresses: Annotated[bool, Field(exclude_if=bool)] = True
    """Replaces postal addresses by <LOCATION>."""
    patterns: Annotated[tuple[PiiPattern, ...], Field(max_length=50)] = ()
    named_entities: Annotated[NamedEntities | None, Field(exclude_if=operator.not_)] = None
    """A spaCy pipeline that finds more names than `names` does. null: no pipeline."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        named = () if self.named_entities is None else self.named_entities.entities
        for name in (pattern.name for pattern in self.patterns):
            if [*self.entities, *(pattern.name for pattern in self.patterns), *named].count(name) > 1:
                raise inconsistent("patterns", f"name {name!r} twice; give each pattern its own name")
        return self

    @property
    def wanted(self) -> tuple[str, ...]:
        """All entities that are found by their form."""
        own = {"SECRET": self.secrets, "PERSON": self.names, "LOCATION": self.addresses}
        return (*self.entities, *(name for name, on in own.items() if on))

    @property
    def placeholders(self) -> tuple[str, ...]:
        """All names that may occur in a placeholder."""
        named = () if self.named_entities is None else self.named_entities.entities
        return tuple(dict.fromkeys((*self.wanted, *(pattern.name for pattern in self.patterns), *named)))


class SemanticDuplicates(Strict):
    """Finds inputs with the same meaning in other words, by static embeddings. These confuse
    topic and statement: read the measurements before you use ``drop``."""

    enabled: bool = False
    threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.9
    """Cosine similarity from which on two inputs count as duplicates."""
    action: Literal["report", "drop"] = "report"
    """drop: keep only one of several duplicates, if their answers are duplicates too."""


BENCHMARKS = "benchmarks/"
"""The folder of benchmarks in the object store. A spec may not name other paths, which may hold other
projects' data."""


class Benchmark(Strict):
    """Texts by which models will be judged, and which therefore must not be in the training data."""

    name: Slug
    path: RelativePath | None = None
    """JSON Lines file below ``benchmarks/`` in the object store. Each line is a text, or an object with
    ``field``."""
    field: Annotated[str, Field(min_length=1, max_length=128)] = "text"
    sha256: Sha256 | None = None
    """The file's hash, which pins its content. Without it the dataset version records the hash that was
    found."""
    texts: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()
    """The texts themselves, if they are few."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.path is None) == (not self.texts):
            raise inconsistent("path", "and texts: give one of the two")
        return self

    def check_place(self, field: str) -> None:
        """Refuse a file outside ``benchmarks/``. Specs that are already on the log stay valid.

        Raises:
            InvalidSpec: with ``field``.
        """
        if self.path is not None and not self.path.startswith(BENCHMARKS):
            raise InvalidSpec(field=field, reason=f"{self.path} is not below {BENCHMARKS}; move it there")


class ContaminationPolicy(Strict):
    """What to do with examples that overlap benchmarks or eval's regression set."""

    action: Literal["drop", "report"] = "drop"
    """drop: leave them out of the training data. Held-out examples are only reported, since no model learns
    from them."""
    words: Annotated[int, Field(ge=5, le=50)] = 13
    """An example overlaps a benchmark if both contain the same sequence of this many words. 13 is GPT-3's
    value. In a narrow domain shorter sequences are common phrases."""


class LabelReview(Strict):
    """Lists labels, for people to check, that a classifier trained on the other examples predicts
    differently."""

    suspects: bool = True
    min_examples: Annotated[int, Field(ge=20)] = 500
    """With fewer labelled examples than this the classifier is too weak, so no list is made."""
    max_examples: Annotated[int, Field(ge=20)] = 5_000
    """Most labelled examples that are checked."""


ExpectationAction = Literal["hold", "reject", "warn"]
"""What a version that misses an expectation does: hold: wait until a person releases it; reject: come to
nothing; warn: say so on its card."""
EXPECTATION_COLUMNS = frozenset(
    {
        "example_id", "split", "format", "question", "answer", "question_words", "answer_words", "tokens",
        "label", "group", "trust", "source",
    }
)  # fmt: skip
"""The columns that an expectation can name."""
_EXPECTED = """
column_distinct_values_to_be_in_set column_distinct_values_to_contain_set
column_distinct_values_to_equal_set column_kl_divergence_to_be_less_than column_max_to_be_between
column_mean_to_be_between column_median_to_be_between column_min_to_be_between
column_most_common_value_to_be_in_set column_pair_values_a_to_be_greater_than_b
column_pair_values_to_be_equal column_proportion_of_non_null_values_to_be_between
column_proportion_of_unique_values_to_be_between column_quantile_values_to_be_between
column_stdev_to_be_between column_sum_to_be_between column_unique_value_count_to_be_between
column_value_lengths_to_be_between column_value_lengths_to_equal column_value_z_scores_to_be_less_than
column_values_to_be_between column_values_to_be_in_set column_values_to_be_null column_values_to_be_unique
column_values_to_not_be_in_set column_values_to_not_be_null compound_columns_to_be_unique
table_row_count_to_be_between table_row_count_to_equal
"""
EXPECTATIONS = frozenset(f"expect_{name}" for name in _EXPECTED.split())
"""The expectations of Great Expectations that take time in proportion to the rows and run no code of a spec.
Expectations with regular expressions are left out, because Python's ``re`` would run the expressions."""


class Expectation(Strict):
    """An expectation about the examples of a version, as Great Expectations writes it in JSON."""

    type: str
    """Such as ``expect_column_values_to_be_between``."""
    kwargs: Annotated[dict[str, JsonValue], Field(max_length=20)] = {}
    """Its arguments. ``column`` is one of example_id, split, format, question, answer, question_words,
    answer_words, tokens, label, group, trust and source."""
    action: ExpectationAction = "hold"

    @model_validator(mode="after")
    def _can_be_checked(self) -> Self:
        if self.type not in EXPECTATIONS:
            near = ", ".join(get_close_matches(self.type, EXPECTATIONS, n=3)) or ", ".join(
                sorted(EXPECTATIONS)
            )
            advice = "for a pattern write a rule of task.output_rules; " if "regex" in self.type else ""
            raise inconsistent("type", f"{self.type!r} cannot be checked here; {advice}choose from {near}")
        if "row_condition" in self.kwargs:
            raise inconsistent("kwargs.row_condition", "is code, which is not run; leave it out")
        listed = self.kwargs.get("column_list")
        named = {name: self.kwargs.get(name) for name in ("column", "column_A", "column_B")}
        named |= {f"column_list.{n}": one for n, one in enumerate(listed)} if isinstance(listed, list) else {}
        for field, column in named.items():
            if column is not None and str(column) not in EXPECTATION_COLUMNS:
                choices = ", ".join(sorted(EXPECTATION_COLUMNS))
                raise inconsistent(f"kwargs.{field}", f"{column!r} is no column; choose from {choices}")
        return self
