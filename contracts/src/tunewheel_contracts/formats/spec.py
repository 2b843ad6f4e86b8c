"""The project spec: what people write in ``project.yaml`` and ``project.declared`` carries."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from tunewheel_contracts.errors import InvalidSpec, check_all, complaints, inconsistent
from tunewheel_contracts.fields import Slug, Strict, Text
from tunewheel_contracts.formats.confidence import AbstainSpec
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.dataset_spec import NOT_ROWS
from tunewheel_contracts.formats.dataset_spec import DatasetSpec as DatasetSpec
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.evaluation_spec import EvaluationSpec as EvaluationSpec
from tunewheel_contracts.formats.evaluation_spec import ReviewSpec as ReviewSpec
from tunewheel_contracts.formats.judge import JUDGED
from tunewheel_contracts.formats.methods import MEASURED_SMALL, parameters_named, suitable_rate
from tunewheel_contracts.formats.output_rules import CitedRule, PatternRule
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.recognised import check_recognised
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_contracts.formats.serving import LogPolicy
from tunewheel_contracts.formats.source_spec import SourceSpec
from tunewheel_contracts.formats.task_spec import TaskSpec as TaskSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.yaml_reading import DuplicateKey, read_yaml

LARGE_BATCH = 32
"""From above here an adapter learns less than all weights do (Schulman et al., LoRA Without Regret, 2025)."""


class ServingSpec(Strict):
    """How the gateway answers for the project."""

    log: LogPolicy = "full"
    """What of the texts of each completion the gateway puts on the log: `full`; `redacted`, without what
    `dataset.pii` finds by patterns; `hashed`, a keyed hash of each text; `off`, no texts. Figures and the
    verdict on the format are always logged. Without texts, drift of the input is not measured, and a
    correction must bring its conversation."""
    abstain: Annotated[AbstainSpec | None, Field(exclude_if=operator.not_)] = None
    """Which answers are not sent, because the model is not sure of them. It takes effect with the next
    verdict. Null: all are sent. The task needs labels."""


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
        if self.serving.abstain is not None and not self.task.has_labels:
            raise inconsistent(
                "serving.abstain",
                "needs answers that can be right or wrong, but the task has no labels: give "
                "task.label_field, or a task.output_rules entry of allowed values for the whole answer",
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
        own = self.model_dump(mode="json", include=parts, exclude={"dataset": NOT_ROWS})
        # Questions of these tasks are kept out of the training rows.
        tasks = [one.model_dump(mode="json") for one in self.evaluation.lm_eval]
        retrieval = self.retrieval if self.trains_with_passages else None
        passages = {"retrieval": retrieval.trained} if retrieval is not None else {}
        rewarded = {"criteria": self.criteria_sha256} if self.train.reward is not None else {}
        return content_sha256(own | {"lm_eval": tasks} | passages | rewarded)

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
                "set: the model may forget what it knew; mix in general data (source: bundled is a little), "
                "lower the rate, or bound the loss by the criterion regression_accuracy."
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
