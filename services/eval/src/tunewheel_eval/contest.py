"""The contestants and items of one evaluation, and the job for the measuring process."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tunewheel_contracts.fields import JsonObject, shared
from tunewheel_contracts.formats.dataset import ChatExample, DatasetManifest
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_outputs.metrics import find_metric
from tunewheel_runtime.base_mirror import fetch_base
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.artifacts import fetch_candidate, fetch_champion, known_rows
from tunewheel_eval.bundles import constraint_of, enforced
from tunewheel_eval.job import ContestantJob, Job, WithPassages
from tunewheel_eval.lm_eval_tasks import AskedTask, write_jobs
from tunewheel_eval.looks import Fresh
from tunewheel_eval.measurement import FINGERPRINT, Header, Measurement, example_key, model_key
from tunewheel_eval.metrics import LABELS, about_passages, metric_of
from tunewheel_eval.passages.looked_up import LookedUp
from tunewheel_eval.passages.scores import cell_sample
from tunewheel_eval.repeats import other_mode_key, repeats_of
from tunewheel_eval.rivals import with_prompt
from tunewheel_eval.settings import Settings

NO_INDEX = (
    "the project's documents have no index yet; once `index.versioned` names one, have the run judged again"
)
NO_OBJECT = r"\s*[^\s{]"
"""The beginning of an answer that is no JSON object."""
LABEL = r'\s*\{{\s*{field}\s*:\s*("(\\.|[^"\\])*"|[^\s",{{}}\[\]]+(?=[\s,}}]))'
"""The beginning of a JSON object, up to the value of ``field``, which is no list or object."""
NOTHING_FOUND = "the index has no document that is known to answer one of the held-out questions"


def asked_for(plan: EvaluationPlan, manifest: DatasetManifest) -> frozenset[str]:
    """Return the metrics that the criteria name."""
    return frozenset(one.metric for one in plan.criteria or manifest.spec.criteria)


@dataclass(frozen=True)
class Contest:
    """The inputs of one evaluation. ``directory`` is its work directory, with the job, the models and the
    rows measured so far. It is kept if the worker dies, and removed after the scorecard is stored."""

    plan: EvaluationPlan
    manifest: DatasetManifest
    fresh: Fresh
    items: tuple[RegressionItem, ...]
    directory: Path
    tasks: tuple[AskedTask, ...] = ()
    looked: LookedUp | None = None
    trained_on: int = 0
    """The number of held-out rows that are left out because the run or the champion trained on them."""

    @property
    def examples(self) -> tuple[ChatExample, ...]:
        """The held-out rows as they are judged: with passages if served requests get passages."""
        return self.as_served(self.fresh.examples)

    def as_served(self, examples: Sequence[ChatExample]) -> tuple[ChatExample, ...]:
        looked = self.looked
        return tuple(
            one if looked is None else looked.asked(one, with_passages=looked.serves) for one in examples
        )

    @cached_property
    def others(self) -> tuple[ChatExample, ...]:
        """Further prompts for base and candidate: the cells' sample with passages if serving has none, or
        without them if serving has some."""
        looked = self.looked
        if looked is None or looked.reason is not None:
            return ()
        sample = cell_sample(self.fresh.examples, self.manifest.spec)
        return tuple(looked.asked(one, with_passages=not looked.serves) for one in sample)

    @cached_property
    def prompted(self) -> tuple[ChatExample, ...]:
        """The held-out prompts with the best prompt of the project, for the base alone."""
        return with_prompt(self.examples, self.manifest.spec.evaluation.best_prompt)

    @property
    def with_passages(self) -> dict[str, WithPassages]:
        """The questions whose prompts have passages; see ``LookedUp.by_key``."""
        limit = self.manifest.spec.task.max_output_tokens
        looked = self.looked
        return looked.by_key(self.fresh.examples, max_output_tokens=limit) if looked is not None else {}

    @property
    def not_yet(self) -> dict[str, str]:
        """By name of a criterion's metric that depends on passages: why it has no figure yet."""
        about = about_passages(self.asked_for, self.manifest.spec.retrieval)
        why = NO_INDEX if self.looked is None else self.looked.reason
        if why is not None:
            return dict.fromkeys(about, why)
        return {name: NOTHING_FOUND for name in about if metric_of(name).on == "retrieval"}

    @property
    def asked_for(self) -> frozenset[str]:
        """The metrics that the criteria name."""
        return asked_for(self.plan, self.manifest)

    def constraint_of(self, role: Role) -> JsonObject | None:
        """Return the schema that constrains the contestant's answers to held-out prompts."""
        return constraint_of(self.plan, role, self.manifest.spec)

    def cut_of(self, role: Role) -> str:
        """Return the beginnings, as a regular expression, at which an answer of the contestant ends early;
        "" for none. See ``EvaluationSpec.stop_early``."""
        spec = self.manifest.spec
        metrics = [find_metric(name) for name in self.asked_for]
        cuts = (
            role is Role.BASE
            and spec.evaluation.stop_early
            and (spec.task.output_schema or {}).get("type") == "object"
            and not (spec.review.required or spec.review.override)
            and all(one is not None and (one.ignores_text or one.on != "holdout") for one in metrics)
        )
        if not cuts or self.constraint_of(role) is None:
            return NO_OBJECT if cuts else ""
        over_base = {one.metric for one in self.plan.criteria or spec.criteria if one.over_base is not None}
        reads_more = (one for name in over_base - {LABELS} if (one := metric_of(name)).test != "ratio")
        properties = (spec.task.output_schema or {}).get("properties", {})
        if next(iter(properties), "") != spec.task.label_field or any(
            one.on == "holdout" for one in reads_more
        ):
            return ""
        return LABEL.format(field=re.escape(json.dumps(spec.task.label_field, ensure_ascii=False)))

    def key_of(self, example: ChatExample) -> str:
        return example_key(example, max_output_tokens=self.manifest.spec.task.max_output_tokens)

    @property
    def job_path(self) -> Path:
        return self.directory / "job.json"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the items that every contestant is measured on. Rows of an earlier attempt may include
        examples that were erased since; these are not among the keys."""
        questions = (key for task in self.tasks for key in task.keys)
        return (*self._example_keys, *(item.key for item in self.items), *questions)

    def keys_of(self, role: Role) -> tuple[str, ...]:
        """The keys of the items that one contestant is measured on. The candidate is also measured on
        repeats, if tokens are sampled, on some prompts in the other mode, and for its fingerprint. Base and
        candidate are also measured on ``others``, and the base on ``prompted``."""
        if role is Role.CHAMPION:
            return self.keys
        others = [self.key_of(one) for one in self.others]
        if role is Role.BASE:
            others += [self.key_of(one) for one in self.prompted]
        own = (*self.repeats, *self.other_mode, *FINGERPRINT) if role is Role.CANDIDATE else ()
        return (*self.keys, *others, *own)

    @property
    def repeats(self) -> dict[str, tuple[str, int]]:
        """The prompts that the candidate answers again; see ``repeats_of``."""
        return repeats_of(self._example_keys, self.manifest.spec.evaluation)

    @cached_property
    def other_mode(self) -> dict[str, tuple[str, int]]:
        """The prompts that the candidate answers again in the other mode, in the form of ``repeats``; see
        ``EvaluationSpec.other_mode``. Keys are hashes, so the first ones are a random sample."""
        if enforced(self.manifest.spec) is None:
            return {}
        sample = sorted(set(self._example_keys))[: self.manifest.spec.evaluation.other_mode]
        return {other_mode_key(key): (key, 0) for key in sample}

    @property
    def _example_keys(self) -> tuple[str, ...]:
        return tuple(self.key_of(one) for one in self.examples)

    def rows(self, role: Role) -> Path:
        return self.directory / f"{role.value}.jsonl"

    def rows_written(self) -> int:
        """Return how many rows of all contestants are on this disk."""
        files = [self.rows(role) for role in self.plan.contestants]
        return sum(path.read_bytes().count(b"\n") for path in files if path.is_file())


async def known_of(contest: Contest, store: ObjectStore, settings: Settings) -> dict[Role, Measurement]:
    """Return stored rows of every contestant that were measured in the same way."""
    champion = contest.plan.champion
    # The base and the champion were measured on the champion's dataset, when it was the candidate.
    likely = [
        contest.plan.rows_of,
        contest.plan.dataset_id,
        *([champion.dataset_id] if champion and champion.dataset_id else []),
    ]
    found: dict[Role, Measurement] = {}
    for role, adapter in contest.plan.contestants.items():
        header = Header(
            model_key=_key(contest, role, adapter),
            dtype=contest.plan.precision or settings.eval_dtype,
            cut=bool(contest.cut_of(role)),
        )
        found[role] = await known_rows(store, header, contest.keys_of(role), dataset_ids=likely)
    return found


async def prepare_job(
    contest: Contest, measured: Mapping[Role, Measurement], store: ObjectStore, settings: Settings
) -> Job:
    """Download every model and the rows already measured, and return the job.

    Raises:
        UnfitCandidate: the candidate's files are unusable.
        InvalidEvent: the champion's files are unusable.
    """
    for base in {_form(contest, adapter).base for adapter in contest.plan.contestants.values()}:
        await fetch_base(store, base.name, base.revision, settings.cache_dir)
    contestants = [
        await _contestant(contest, store, role, adapter, measured[role])
        for role, adapter in contest.plan.contestants.items()
    ]
    return Job(
        **shared(Job, contest),
        contestants=tuple(contestants),
        lm_eval=await write_jobs(contest.tasks, contest.directory / "lm-eval"),
        max_output_tokens=contest.manifest.spec.task.max_output_tokens,
        cache_dir=settings.cache_dir,
        dtype=contest.plan.precision or settings.eval_dtype,
        decoding=contest.manifest.spec.evaluation.decoding,
        other_constraint=(
            enforced(contest.manifest.spec) if contest.constraint_of(Role.CANDIDATE) is None else None
        ),
        retrieval=contest.manifest.spec.retrieval,
        task=contest.manifest.spec.task,
        batch_size=settings.eval_batch_size,
        threads=settings.eval_threads,
    )


async def _contestant(
    contest: Contest, store: ObjectStore, role: Role, adapter: AdapterRef | None, measured: Measurement
) -> ContestantJob:
    form, key = _form(contest, adapter), _key(contest, role, adapter)
    directory = None
    if adapter is not None:
        fetch = fetch_candidate if role is Role.CANDIDATE else fetch_champion
        directory = await fetch(store, adapter, contest.directory / "models" / key)
    seed = contest.directory / f"{role.value}.known.jsonl"
    await asyncio.to_thread(seed.write_text, measured.to_lines(), "utf-8")
    return ContestantJob(
        role=role,
        model_key=key,
        base=form.base,
        quantization=form.quantization,
        directory=directory,
        whole_model=adapter is not None and adapter.is_whole,
        rows=contest.rows(role),
        constraint=contest.constraint_of(role),
        cut_at=contest.cut_of(role),
        seeds=(seed,),
    )


def _form(contest: Contest, adapter: AdapterRef | None) -> AdapterRef:
    """Return the adapter whose form of the base is used. The base is measured in the form that the candidate
    was trained on, so that only the adapter differs."""
    return adapter or contest.plan.adapter


def _key(contest: Contest, role: Role, adapter: AdapterRef | None) -> str:
    form = _form(contest, adapter)
    spec = contest.manifest.spec
    return model_key(
        form.base,
        adapter,
        quantization=form.quantization,
        decoding=spec.evaluation.decoding,
        template=spec.task.chat_template_kwargs,
        constraint=contest.constraint_of(role),
    )
