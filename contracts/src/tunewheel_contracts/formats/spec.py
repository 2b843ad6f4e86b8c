"""The project spec: what people write in ``project.yaml`` and ``project.declared`` carries."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from tunewheel_contracts.errors import InvalidSpec, check_all, complaints, inconsistent
from tunewheel_contracts.fields import (
    Fraction,
    LinearPattern,
    NonNegative,
    PositiveInt,
    Sha256,
    Slug,
    Strict,
    Text,
)
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.criteria import LOOKS, Criterion
from tunewheel_contracts.formats.data_quality import (
    Benchmark,
    ContaminationPolicy,
    Expectation,
    ExpectationAction,
    LabelReview,
    PiiPolicy,
    SemanticDuplicates,
    TopicTrust,
)
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.example_formats import CleaningSpec, FormatsSpec
from tunewheel_contracts.formats.glossary import Glossary
from tunewheel_contracts.formats.judge import JUDGED, JudgeSpec
from tunewheel_contracts.formats.lm_eval import LmEvalTask
from tunewheel_contracts.formats.methods import MEASURED_SMALL, parameters_named, suitable_rate
from tunewheel_contracts.formats.output_rules import CitedRule, OutputRule, PatternRule
from tunewheel_contracts.formats.output_schema import OutputSchema
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.recognised import check_recognised
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_contracts.formats.serving import LogPolicy
from tunewheel_contracts.formats.source_spec import SourceSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.yaml_reading import DuplicateKey, read_yaml

LARGE_BATCH = 32
"""From above here an adapter learns less than all weights do (Schulman et al., LoRA Without Regret, 2025)."""
QUIET_MIN_RECORDS = 10
ORIGIN_SHARE, SMALL_PROJECT = 0.05, 300
REPEATS, MOST_REPEATS, REPEAT_ROWS = 3, 20, 20
CELL_ROWS = 40
LanguageCode = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]


_NOT_ROWS = {"build", "erase_versions", "expectations", "changes"}
"""The settings of ``dataset`` that decide nothing about the rows of a version."""


class NumberTolerance(Strict):
    """A number is right that differs by no more than the larger of both from the expert's."""

    absolute: NonNegative = 0
    relative: Fraction = 0
    """As a share of the expert's number."""


class TaskSpec(Strict):
    """What the model is asked to do."""

    system_prompt: Annotated[Text, Field(min_length=1)]
    output_schema: OutputSchema | None = None
    """JSON Schema (2020-12) of the answer; without it the answer is free text."""
    label_field: str | None = None
    """The answer's property that is the label, for accuracy."""
    output_rules: Annotated[tuple[OutputRule, ...], Field(max_length=50)] = ()
    """What else an answer must hold, to be learnt from and to be valid."""
    glossary: Annotated[Glossary, Field(exclude_if=lambda glossary: glossary == Glossary())] = Glossary()
    """The words of the business, which the metric ``domain_language`` goes by."""
    number_tolerance: Annotated[NumberTolerance | None, Field(exclude_if=operator.not_)] = None
    """How far a number may lie from the expert's, for the metric ``numeric_accuracy``."""
    refusal: Annotated[LinearPattern | None, Field(exclude_if=operator.not_)] = None
    """An answer in which this pattern is found declines to help, as the expert's do where the question is out
    of scope: for the metric ``refusal_rate``."""
    max_output_tokens: Annotated[int, Field(gt=0, le=8192)] = 256
    """Of an answer: in evaluation, and at the gateway where the client sets no limit."""


class BuildPolicy(Strict):
    """When a new dataset version is built without anybody asking."""

    min_new_records: PositiveInt = 100
    """Build once this many records arrived since the last version."""
    quiet_seconds: NonNegative | None = 30.0
    """Build also when fewer arrived, at least ``quiet_min_records``, and then none for this long; null: wait
    for the count."""
    quiet_min_records: Annotated[PositiveInt, Field(exclude_if=lambda count: count == QUIET_MIN_RECORDS)] = (
        QUIET_MIN_RECORDS
    )
    """Fewer wait for others, however quiet it stays: each version is trained and evaluated as a whole."""


class ReplaySpec(Strict):
    """General instruction data among the training rows, so that the model keeps what it could do before."""

    source: Annotated[str, Field(min_length=1, max_length=512)]
    """A JSON Lines file (path, ``file://`` or ``https://`` URL) or a Hugging Face dataset id. Curate reads
    what its operator lists: hosts in ``TUNEWHEEL_SPEC_HOSTS``, by default the hub's; folders in
    ``TUNEWHEEL_SPEC_FOLDERS``, by default none but ``general/`` of a store that is a folder."""
    share: Annotated[float, Field(gt=0, le=0.9)] = 0.1
    """Of the training rows, replayed ones included. Fewer where the source has not as many."""
    split: Annotated[str, Field(min_length=1, max_length=64)] = "train"
    """Of a Hugging Face dataset."""
    revision: Annotated[str | None, Field(min_length=1, max_length=64, exclude_if=operator.not_)] = None
    """Of a Hugging Face dataset: a commit, tag or branch; null: what its main branch holds."""
    sha256: Sha256 | None = None
    """Refuse the source where its conversations hash to anything else, as a version's manifest says."""
    license: Annotated[str, Field(min_length=1, max_length=128)] | None = None

    @model_validator(mode="after")
    def _revision_of_a_dataset(self) -> Self:
        if self.revision is not None and self.is_file:
            raise inconsistent(
                "revision", f"is of Hugging Face datasets, and {self.source} is a file; pin it by sha256"
            )
        return self

    @property
    def is_file(self) -> bool:
        """Whether ``source`` is a JSON Lines file, by path or URL, rather than a Hugging Face dataset."""
        return "://" in self.source or self.source.endswith((".jsonl", ".jsonl.gz", ".json"))


class RecordLimits(Strict):
    """How many of the rows that train one origin may give, where no expert validated its answers. The rest of
    its records wait in quarantine. Each limit is a share of these rows and the experts' rows together; null:
    no limit. A project without experts' answers has no limits."""

    principal: Annotated[Fraction | None, Field(exclude_if=lambda share: share == ORIGIN_SHARE)] = (
        ORIGIN_SHARE
    )
    """One caller of the API, as the API identified the caller."""
    customer: Annotated[Fraction | None, Field(exclude_if=lambda share: share == ORIGIN_SHARE)] = ORIGIN_SHARE
    """One ``customer`` of tickets and feedback, or ``group`` of examples."""
    kind: Annotated[Fraction | None, Field(exclude_if=operator.not_)] = None
    """All tickets, all examples, or all feedback."""
    day: Annotated[Fraction | None, Field(exclude_if=operator.not_)] = None
    """All records that were published on one day (UTC)."""
    small: Annotated[int, Field(ge=0, exclude_if=lambda count: count == SMALL_PROJECT)] = SMALL_PROJECT
    """An origin's records and the experts' records may always be this many together."""


class DatasetSpec(Strict):
    min_examples: PositiveInt = 20
    """Fewer clean examples than this and the version is rejected."""
    comfortable_examples: PositiveInt = 1000
    """Fewer clean examples than this and the version is marked preliminary."""
    min_characters: PositiveInt = 3
    """Inputs shorter than this are dropped as near-empty."""
    max_tokens: PositiveInt = 1024
    """Longest example that is kept: in the base model's own tokens, where its tokenizer can be had, else in
    estimated ones (four characters each). The version's card says which."""
    holdout_fraction: Annotated[float, Field(ge=0.05, le=0.5)] = 0.15
    """Of the examples of every label, as nearly as groups allow. A change takes effect as data comes."""
    holdout_trust: Annotated[
        tuple[Literal["expert", "corrected", "unverified"], ...],
        Field(min_length=1, max_length=3, exclude_if=lambda trust: trust == ("expert",)),
    ] = ("expert",)
    """Whose answers may be held out: `expert`, those that an expert validated; `corrected`, corrections by
    end users; `unverified`, all others. The rest only trains. A version without any such answer holds out
    unverified ones, and its card and scorecard say so."""
    trust: Annotated[TopicTrust, Field(exclude_if=lambda trust: trust == TopicTrust())] = TopicTrust()
    """The most trust of what producers on Kafka publish, by topic. A change is for what comes after it."""
    min_trust: Annotated[
        Literal["expert", "corrected", "unverified"], Field(exclude_if=lambda trust: trust == "unverified")
    ] = "unverified"
    """Whose answers may train: `unverified`, everybody's; `corrected`, corrections by end users and experts'
    answers; `expert`, only experts' answers."""
    limits: Annotated[RecordLimits, Field(exclude_if=lambda limits: limits == RecordLimits())] = (
        RecordLimits()
    )
    corrections: Annotated[Literal["wait", "train"], Field(exclude_if=lambda mode: mode == "wait")] = "wait"
    """Corrections by end users wait in quarantine until a person releases them, or train at once."""
    injections: Annotated[
        Literal["quarantine", "drop", "keep"], Field(exclude_if=lambda action: action == "quarantine")
    ] = "quarantine"
    """What is done with a text that addresses the model (prompt injection), in questions, answers and
    documents. `quarantine`: it waits for a person; `drop`: it never trains; `keep`: it trains, and lineage
    marks it. The index holds such passages all the same, as data between fences."""
    near_duplicate_threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8
    """Jaccard similarity of word shingles from which two inputs are nearly the same. They count as one where
    their answers are equal but for case, punctuation, and figures that an answer takes from its question."""
    cleaning: CleaningSpec = CleaningSpec()
    languages: tuple[LanguageCode, ...] = ()
    """Languages that are learnt from, as ISO 639-1 codes; inputs certainly in another one are dropped. Empty:
    all."""
    formats: FormatsSpec = FormatsSpec()
    semantic_duplicates: SemanticDuplicates = SemanticDuplicates()
    label_review: LabelReview = LabelReview()
    benchmarks: Annotated[tuple[Benchmark, ...], Field(max_length=50)] = ()
    contamination: ContaminationPolicy = ContaminationPolicy()
    pii: PiiPolicy = PiiPolicy()
    build: BuildPolicy = BuildPolicy()
    ratings: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Learn from thumbs without a correction as well: an answer rated up is an example that is trusted least,
    an answer rated down one to avoid. They are never held out: nobody checked them."""
    replay: ReplaySpec | None = None
    expectations: Annotated[tuple[Expectation, ...], Field(max_length=50, exclude_if=operator.not_)] = ()
    """What the examples of every version must be like, beside what curation checks itself."""
    changes: Annotated[ExpectationAction, Field(exclude_if=lambda action: action == "warn")] = "warn"
    """What happens where a version differs from the one before by more than chance and by more than a tenth:
    in the shares of labels or kinds of sources, in the length of questions or answers, in what each stage
    drops. Rows that answer a request for labels do not count, and a changed spec only warns."""
    erase_versions: bool = False
    """An erasure deletes also the rows of the versions that held what is erased: nobody can train on them any
    more. False: the proof names them."""


class EvaluationSpec(Strict):
    """How a candidate is judged, beside the criteria."""

    decoding: Decoding = Decoding()
    """How answers are written while they are judged, and then where they are served."""
    resolution: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Smallest difference that matters, as a fraction: a holdout that cannot tell so much decides nothing."""
    looks: Annotated[int, Field(gt=0, le=100, exclude_if=lambda count: count == LOOKS)] = LOOKS
    """Most verdicts that a held-out row serves. A verdict on held-out rows uses ``significance`` divided by
    this number, and after each verdict the next version replaces that part of the rows by new ones, the most
    used first. Fewer looks decide more by the same number of rows, and use up more rows."""
    repeats: Annotated[int, Field(ge=0, le=MOST_REPEATS, exclude_if=lambda count: count == REPEATS)] = REPEATS
    """Where ``decoding`` draws tokens: how often some held-out prompts are answered again, by other seeds.
    How far the figures of two measurements lie apart is shown, and no verdict is finer. 0: nobody looks."""
    repeat_rows: Annotated[int, Field(gt=0, le=500, exclude_if=lambda count: count == REPEAT_ROWS)] = (
        REPEAT_ROWS
    )
    """How many prompts are answered again."""
    cells: Annotated[int, Field(ge=0, le=2000, exclude_if=lambda count: count == CELL_ROWS)] = CELL_ROWS
    """Where there is `retrieval`: how many held-out prompts base and candidate are asked a second time, with
    passages where `retrieval.default` is off, without where it is on. 0: they are not compared."""
    best_prompt: Annotated[Text | None, Field(exclude_if=operator.not_)] = None
    """The best system prompt that you know for the base without tuning, such as one with rules and examples:
    the base answers the held-out prompts with it as well, and the scorecard says how far it gets. It counts
    in no criterion. Null: nobody asks."""
    lm_eval: Annotated[tuple[LmEvalTask, ...], Field(max_length=20, exclude_if=operator.not_)] = ()
    """Tasks of lm-evaluation-harness that every contestant is asked as well. Their questions are kept out of
    what is trained on, as ``dataset.benchmarks`` are."""
    stop_early: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """True: where answers are JSON objects, an answer of the base ends as soon as it does not begin with one.
    The verdict stays the same. The base's figures that read such texts, such as ``rouge_l``, are
    computed on what was written; the scorecard says of how many answers. Nothing is cut where a criterion
    names such a figure, or people review answers."""
    judge: Annotated[JudgeSpec | None, Field(exclude_if=operator.not_)] = None
    """A model that compares the candidate's answers with the champion's, for the metric ``judged``."""

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        names = [one.task for one in self.lm_eval]
        for name in names:
            if names.count(name) > 1:
                raise inconsistent("lm_eval", f"name {name} twice; criteria could not tell them apart")
        return self


class ReviewSpec(Strict):
    required: bool = False
    """True: an automated pass waits for people; a rejection is final for that version."""
    sample: PositiveInt = 20
    """How many held-out prompts the reviewers compare: of every label, of those that contestants disagree on,
    and of those with the worst answer of either. Prompts with two equal answers are not shown, and count as
    ties. 50 to 100 show what 20 do not."""
    reviewers: Annotated[int, Field(gt=0, le=20, exclude_if=lambda count: count == 1)] = 1
    """How many people must submit before the review counts."""
    per_item: Annotated[int, Field(gt=0, le=20, exclude_if=lambda count: count == 1)] = 1
    """How many of them judge each prompt. More than one shows how far they agree."""
    min_preference: Annotated[Fraction | None, Field(exclude_if=lambda share: share is None)] = None
    """Approvals count only where the candidate is preferred on this share of prompts at least, an equal one
    counting half, by the lower end of the interval. Null: unless the whole interval lies below 0.5; to
    override a criterion, where the whole interval lies above 0.5."""
    override: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """True: reviewers are asked also where a criterion is missed; their approval, with a comment, outranks
    it."""
    webhook: Annotated[str | None, Field(max_length=512, exclude_if=operator.not_)] = None
    """URL that is told of every review that waits, by a signed CloudEvent. Eval's operator lists the hosts
    that it may name."""

    @model_validator(mode="after")
    def _enough_reviewers(self) -> Self:
        if self.per_item > self.reviewers:
            raise inconsistent(
                "per_item", f"{self.per_item} exceeds reviewers, which is {self.reviewers}; raise reviewers"
            )
        return self


class ServingSpec(Strict):
    """How the gateway answers for the project."""

    log: LogPolicy = "full"
    """What of the texts of each completion the gateway puts on the log: `full`; `redacted`, without what
    `dataset.pii` finds by patterns; `hashed`, a keyed hash of each text; `off`, no texts. Figures and the
    verdict on the format are always logged. Without texts, drift of the input is not measured, and a
    correction must bring its conversation."""


class ProjectSpec(Strict):
    """Everything Tunewheel needs to know about one business task."""

    project: Slug
    description: Text = ""
    base_model: Annotated[str, Field(min_length=1, max_length=512)]
    """A Hugging Face id or a local path; safetensors only."""
    task: TaskSpec
    sources: Annotated[tuple[SourceSpec, ...], Field(max_length=32, exclude_if=operator.not_)] = ()
    """Other systems that the project learns from: Kafka topics and webhooks, mapped to events."""
    dataset: DatasetSpec = DatasetSpec()
    train: TrainSpec = TrainSpec()
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    evaluation: Annotated[EvaluationSpec, Field(exclude_if=lambda spec: spec == EvaluationSpec())] = (
        EvaluationSpec()
    )
    review: ReviewSpec = ReviewSpec()
    rollout: RolloutSpec = RolloutSpec()
    drift: DriftSpec = DriftSpec()
    serving: Annotated[ServingSpec, Field(exclude_if=lambda spec: spec == ServingSpec())] = ServingSpec()
    retrieval: Annotated[RetrievalSpec | None, Field(exclude_if=operator.not_)] = None
    """Whether answers draw on the project's documents; null: they do not, and nothing is indexed."""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        titles = [criterion.title for criterion in self.criteria]
        for title in titles:
            if titles.count(title) > 1:
                raise inconsistent("criteria", f"name {title} twice; put all its bounds into one entry")
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise inconsistent("sources", f"name {name} twice; give each source a name of its own")
        self._label_in_schema()
        if self.drift.labels.teacher_quota and self.dataset.formats.documents.questions.teacher is None:
            raise inconsistent(
                "drift.labels.teacher_quota",
                "is set, but no teacher is named: give dataset.formats.documents.questions.teacher, or set 0",
            )
        if self.drift.labels.second_opinion and self.task.label_field is None:
            raise inconsistent(
                "drift.labels.second_opinion",
                "compares labels, but the task has none: give task.label_field, or write false",
            )
        canary = self.rollout.canary
        if canary.enabled and canary.percent == 0:
            raise inconsistent(
                "rollout.canary.percent",
                "is 0: a canary without traffic is never judged; give 1 to 100, or set enabled: false",
            )
        return self

    @model_validator(mode="after")
    def _cites_where_there_is_text(self) -> Self:
        if self.retrieval and self.retrieval.cite == "answer" and self.task.output_schema is not None:
            raise inconsistent(
                "retrieval.cite",
                "is answer, but task.output_schema gives answers a form that sources have no place in; "
                "write header",
            )
        return self

    def _label_in_schema(self) -> None:
        label, schema = self.task.label_field, self.task.output_schema
        if not label or schema is None:
            return
        properties = schema.get("properties")
        if not isinstance(properties, dict) or label not in properties:
            raise inconsistent("task.label_field", f"{label!r} is no property of task.output_schema; add it")

    @property
    def sha256(self) -> str:
        return content_sha256(self.model_dump(mode="json"))

    @property
    def training_sha256(self) -> str:
        """Hash what decides the rows of a version and what training makes of them: the same records under the
        same hash give the same model. Nothing of when versions are built, judged or rolled out counts."""
        parts = {"base_model", "task", "dataset", "train"}
        own = self.model_dump(mode="json", include=parts, exclude={"dataset": _NOT_ROWS})
        # Questions of these tasks are kept out of the training rows.
        tasks = [one.model_dump(mode="json") for one in self.evaluation.lm_eval]
        retrieval = self.retrieval if self.trains_with_passages else None
        passages = {"retrieval": retrieval.trained} if retrieval is not None else {}
        return content_sha256(own | {"lm_eval": tasks} | passages)

    @property
    def trains_with_passages(self) -> bool:
        """Whether curate puts passages of the project's documents into the rows that train."""
        return self.retrieval is not None and self.retrieval.training is not None

    @property
    def criteria_sha256(self) -> str:
        return self.sha256_of(self.criteria)

    def sha256_of(self, criteria: Sequence[Criterion]) -> str:
        """Hash ``criteria`` together with the tasks and the judge that they may be about."""
        asked: list[Any] = [one.model_dump(mode="json") for one in criteria]
        judge = self.evaluation.judge
        about: dict[str, Any] = {
            "lm_eval": [one.model_dump(mode="json") for one in self.evaluation.lm_eval],
            "judge": judge.sha256 if judge and any(one.metric == JUDGED for one in criteria) else None,
        }
        about = {name: value for name, value in about.items() if value}
        return content_sha256({"criteria": asked, **about} if about else asked)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What is allowed and seldom meant, a sentence each."""
        train, cautions = self.train, list[str]()
        mild = train.method.traits.mild_learning_rate
        if train.learning_rate > mild and self.dataset.replay is None:
            cautions.append(
                f"train.learning_rate {train.learning_rate:g} is above {mild:g} and dataset.replay is not "
                "set: the model may forget what it knew; mix in general data, lower the rate, or bound the "
                "loss by the criterion regression_accuracy."
            )
        size = parameters_named(self.base_model) or MEASURED_SMALL
        if size < MEASURED_SMALL and train.method.traits.adapter:
            suitable = suitable_rate(train.method, size)
            if train.learning_rate * 4 < suitable:
                cautions.append(
                    f"train.learning_rate {train.learning_rate:g} teaches an adapter of so small a base next "
                    f"to nothing; write {suitable:g}."
                )
        if train.batch_size > LARGE_BATCH and train.method.traits.adapter:
            cautions.append(
                f"train.batch_size {train.batch_size} is above {LARGE_BATCH}, and an adapter learns less "
                "from large steps; lower it."
            )
        judge = self.evaluation.judge
        if judge and not self.review.override and any(one.metric == JUDGED for one in self.criteria):
            cautions.append(
                f"criteria on {JUDGED} are undecided until people have compared {judge.min_reviewed} pairs "
                "of the project's answers in reviews, which measures the judge's error; set review.override, "
                "so that people are asked where a criterion is undecided."
            )
        return tuple(cautions)


def _place(error: Exception, text: str) -> str:
    """Return the line of ``text`` where ``error`` was found, with a mark below; empty where none is known."""
    marks = (error.problem_mark, error.context_mark) if isinstance(error, yaml.MarkedYAMLError) else ()
    lines = text.splitlines()
    mark = next((mark for mark in marks if mark is not None and mark.line < len(lines)), None)
    if mark is None:
        return ""
    return f":\n    {lines[mark.line]}\n    {' ' * mark.column}^"


def parse_spec(text: str) -> ProjectSpec:
    """Read a spec from YAML.

    Raises:
        InvalidSpec: not YAML, a key given twice, or not a valid spec; with all faults that can be told at
            once.
    """
    try:
        raw: Any = read_yaml(text)
    except DuplicateKey as error:
        raise InvalidSpec(field=error.field, reason=error.reason) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidSpec(field="(file)", reason=f"is not YAML: {error}{_place(error, text)}") from error
    if not isinstance(raw, dict):
        raise InvalidSpec(field="(file)", reason="is not a mapping; start with 'project: <name>'")
    try:
        spec = ProjectSpec.model_validate(raw)
    except ValidationError as error:
        raise InvalidSpec.of(complaints(error)) from error
    benchmarks, tasks = spec.dataset.benchmarks, spec.evaluation.lm_eval
    check_all(
        *(partial(one.check_place, f"dataset.benchmarks.{n}.path") for n, one in enumerate(benchmarks)),
        *(partial(one.check_place, f"evaluation.lm_eval.{n}.path") for n, one in enumerate(tasks)),
        partial(
            check_recognised,
            languages=spec.dataset.languages,
            pii_entities=spec.dataset.pii.entities,
            patterns=({} if spec.task.refusal is None else {"task.refusal": spec.task.refusal})
            | {
                f"task.output_rules.{number}.pattern": rule.pattern
                for number, rule in enumerate(spec.task.output_rules)
                if isinstance(rule, PatternRule | CitedRule)
            },
        ),
    )
    return spec
