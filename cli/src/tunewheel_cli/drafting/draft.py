"""Puts a project together: the fields of its spec, each with the reason that stands above it in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunewheel_planner.plan import duration

if TYPE_CHECKING:
    from tunewheel_cli.drafting.base import Base
    from tunewheel_cli.surveying.shape import Values
    from tunewheel_cli.surveying.survey import Survey

CLEAN = 0.8
"""The share of the different questions that a version is expected to keep at least."""
FEWEST = 20
MOST_HELD_OUT = 500
MANY_ALIKE = 0.3
MOST_NAMED = 10
FRACTIONS = (0.2, 0.3)
LEAST_FRACTION = 0.05
CHARACTERS_PER_TOKEN = 3
"""Few, so that answers in other languages than English find room."""
USUAL_TOKENS, MOST_TOKENS = 1024, 4096


@dataclass(frozen=True, slots=True)
class Section:
    comments: tuple[str, ...]
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """What the answers ask of a model."""

    fields: dict[str, Any]
    metric: str
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    sections: tuple[Section, ...]
    choice: Choice
    cautions: tuple[str, ...] = field(default=())

    @property
    def spec(self) -> dict[str, Any]:
        return {name: value for section in self.sections for name, value in section.fields.items()}


def task_of(survey: Survey, prompts: Sequence[tuple[str, int]]) -> Task:
    """Return the task of the answers of ``survey``. ``prompts``: system prompts of the files, and how often
    each stands there."""
    shape, comments = survey.shape, list[str]()
    fields: dict[str, Any] = {}
    if survey.is_structured:
        label = shape.label
        metric = "label_accuracy" if label else "set_match" if _has_lists(survey) else "exact_fields"
        names = ", ".join(shape.properties)
        alone = label is not None and len(shape.properties) == 1
        what = f"Name the {names.replace('_', ' ')} of the text. " if alone else ""
        prompt = f"{what}Answer with JSON: {names}."
        fields = {"label_field": label} if label else {}
        fields["output_schema"] = shape.schema()
        for name, one in shape.properties.items():
            comments += [f"{name}: {said}" for said in _doubts(one.values)]
    elif survey.texts.labels and survey.texts.total == survey.examples:
        metric, prompt = "label_accuracy", "Answer with one of the known answers, and nothing else."
        values = [*survey.texts.labels]
        fields = {"output_rules": [{"rule": "allowed_values", "values": values, "name": "known"}]}
        comments += _doubts(survey.texts)
    else:
        metric, prompt = "chrf", "Answer the question."
    found = next((text for text, count in prompts if 2 * count >= survey.examples), None)
    own = "Say in your own words what the model does, and for whom."
    comments.append("The system prompt of the file." if found else own)
    return Task(
        {"system_prompt": found or prompt, **fields, "max_output_tokens": _output_tokens(survey)},
        metric,
        tuple(comments),
    )


def draft(
    survey: Survey,
    task: Task,
    base: Base,
    *,
    project: str,
    near: float,
    epochs: float,
    max_tokens: int,
    documents: bool,
    files: Sequence[str],
) -> Draft:
    """Return the whole project. ``near``: the share of questions that are nearly the same as another one."""
    clean = int(survey.distinct * (1 - near))
    least = _rounded(max(FEWEST, int(CLEAN * clean)))
    fraction, task, choice = _judged(task, least)
    long = {"max_tokens": max_tokens} if max_tokens != USUAL_TOKENS else {}
    counted = f"{survey.examples:,} examples, {survey.distinct:,} different questions"
    train = {"method": "lora", "learning_rate": base.learning_rate, "epochs": epochs, **long}
    sections = (
        Section(
            (f"Drafted from {_listed(files)}: {counted}.", "Every field: docs/project-yaml.md"),
            {"project": project, "base_model": base.name},
        ),
        Section(task.comments, {"task": task.fields}),
        _dataset(survey.distinct, least, fraction, long),
        Section(
            (f"The base: {base.why}. The learning rate suits its size.{_duration(base)}",), {"train": train}
        ),
        _criteria(choice),
        Section(
            ("Nobody asks yet, so the verdict alone decides. Remove this once there is traffic.",),
            {"rollout": {"shadow": {"enabled": False}, "canary": {"enabled": False}}},
        ),
        *((_RETRIEVAL,) if documents else ()),
    )
    return Draft(sections, choice, tuple(_cautions(choice, near, clean)))


_RETRIEVAL = Section(
    (
        "The documents are searched. The scorecard compares answers with passages and without;",
        'write default: "on" if they are better with them. A question that no passage fits gets none.',
    ),
    {"retrieval": {"default": "off", "floor": "calibrated"}},
)


def _dataset(examples: int, least: int, fraction: float, long: dict[str, int]) -> Section:
    comments = (
        f"A version needs {least:,} clean examples. {fraction:.0%} are held out, to judge models by.",
        "A version is built when all have arrived, or none came for 30 seconds.",
    )
    build = {
        "min_new_records": max(least, examples),
        "quiet_seconds": 30,
        "quiet_min_records": max(10, examples // 10),
    }
    own = {"min_examples": least, "holdout_fraction": fraction, **long, "build": build}
    return Section(comments, {"dataset": own})


def _criteria(choice: Choice) -> Section:
    comments = (
        f"On {choice.rows} held-out rows a good first model is passed in {choice.first:.0%} of cases,"
        f" and a model .10 better than the one in production in {choice.better:.0%}.",
        "What a criterion means: docs/evaluation.md",
    )
    return Section(comments, {"criteria": [*choice.criteria]})


def _cautions(choice: Choice, near: float, clean: int) -> Iterator[str]:
    if not choice.is_decidable:
        yield (
            f"{choice.rows} held-out rows decide little: a good first model is passed in {choice.first:.0%} "
            "of cases. Collect more examples."
        )
    if near > MANY_ALIKE:
        yield (
            f"{near:.0%} of the questions are nearly the same as another one. Such questions stay together, "
            "so a version may have nothing to hold out; add questions that differ."
        )
    if clean < FEWEST:
        yield f"{clean} different questions are fewer than the {FEWEST} of the smallest version."


def _judged(task: Task, least: int) -> tuple[float, Task, Choice]:
    """Return the share of rows to hold out, the task, and the criteria. Where rows are too few to decide
    about labels, the likelihood of the right answers is judged, of which every row tells much."""
    whole = max(LEAST_FRACTION, min(FRACTIONS[0], round(MOST_HELD_OUT / least, 2)))
    fractions = (whole,) if whole < FRACTIONS[0] else FRACTIONS
    tried: list[tuple[float, Task, Choice]] = []
    for metric in dict.fromkeys((task.metric, "chrf")):
        for fraction in fractions:
            rows = max(1, int(least * fraction))
            choice = choose_criteria(metric, rows=rows)
            tried.append((fraction, task, choice))
            if choice.is_decidable:
                return tried[-1]
    return max(tried, key=lambda one: (min(one[2].first, one[2].better), one[2].rows))


def _listed(files: Sequence[str]) -> str:
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _duration(base: Base) -> str:
    return f" Training is planned to take {duration(base.plan.hours)} here." if base.plan is not None else ""


def _has_lists(survey: Survey) -> bool:
    return any("array" in one.types for one in survey.shape.properties.values())


def _doubts(values: Values) -> Iterator[str]:
    """Yield what is odd about labels."""
    for value, meant in sorted(values.misspelt.items()):
        yield f"{value!r} looks like {meant!r} misspelt, so it is no allowed value; mend it in the file"
    if rare := values.rare:
        yield f"once or twice only: {', '.join(rare[:MOST_NAMED])}; take out what is a mistake"


def _output_tokens(survey: Survey) -> int:
    lengths = sorted(len(messages[-1]["content"]) for messages in survey.conversations) or [0]
    tokens = lengths[int(0.99 * (len(lengths) - 1))] / CHARACTERS_PER_TOKEN * 1.25
    return min(1024, max(32, 32 * int(tokens / 32 + 1)))


def tokens_needed(survey: Survey) -> int:
    """Return the longest example that should be kept, in tokens: of 99 of 100 examples, rounded up."""
    lengths = sorted(sum(len(one["content"]) for one in messages) for messages in survey.conversations) or [0]
    tokens = lengths[int(0.99 * (len(lengths) - 1))] / CHARACTERS_PER_TOKEN
    return min(MOST_TOKENS, max(USUAL_TOKENS, 512 * int(tokens / 512 + 1)))


def _rounded(count: int) -> int:
    """Round down to two digits."""
    step = 10 ** max(0, len(str(count)) - 2)
    return count // step * step


ENOUGH = 0.8
ASKED = 0.5
"""Significance of criteria on few rows: .05 for each of ten verdicts."""
RESOLUTION = 0.05
DRAWS = 180
"""Models that are drawn to choose by: chances are told to about .04."""
_BOUNDS = ((0.2, -0.05), (0.1, -0.05), (0.1, -0.1), (0.05, -0.15), (0.0, -0.2))
"""What is asked over the base and over the champion, the strictest first."""


@dataclass(frozen=True, slots=True)
class Choice:
    criteria: tuple[dict[str, Any], ...]
    rows: int
    first: float
    """How likely a good first model meets them."""
    better: float
    """How likely a model that is .10 better than the champion meets them."""

    @property
    def is_decidable(self) -> bool:
        return min(self.first, self.better) >= ENOUGH


def choose_criteria(metric: str, *, rows: int) -> Choice:
    """Return the strictest criteria of ``metric`` that ``rows`` held-out rows can decide, else the
    mildest."""
    from tunewheel_contracts.formats.criteria import Criterion
    from tunewheel_verdicts.power import chances, sizes_of

    def tried(criteria: Sequence[dict[str, Any]]) -> Choice:
        asked = [Criterion.model_validate(one) for one in criteria]
        told = chances(asked, sizes_of(max(1, rows)), resolution=RESOLUTION, draws=DRAWS)
        return Choice(tuple(criteria), rows, told[0].met, told[-1].met)

    *stricter, mildest = _ladder(metric)
    last = tried(mildest)
    if not last.is_decidable:
        return last
    return next((one for one in map(tried, stricter) if one.is_decidable), last)


def _ladder(metric: str) -> Iterator[Sequence[dict[str, Any]]]:
    for base, champion in _BOUNDS:
        if metric == "chrf":  # a text may be right in many words: that the answers are likelier is the proof
            better: list[dict[str, Any]] = [
                {"metric": "perplexity", "over_base": 0.0, "significance": ASKED},
                {"metric": metric, "over_champion": champion, "significance": ASKED},
            ]
        else:
            better = [{"metric": metric, "over_base": base, "over_champion": champion, "significance": ASKED}]
        yield better
