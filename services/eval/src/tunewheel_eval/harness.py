"""Asks a loaded model the questions of lm-evaluation-harness's tasks, by lm-eval's own code.

Only the measuring process loads lm-eval. Prompts, few-shot examples, answers, filters and scores are
lm-eval's own, as in its ``simple_evaluate``. The only difference is that rows are stored after every few
batches.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tunewheel_outputs.lm_eval_metric import FORMS, figure_name

from tunewheel_eval.errors import NoNumber, UnfitCandidate
from tunewheel_eval.job import LmEvalJob
from tunewheel_eval.measurement import LmEvalRow, Response

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task
    from lm_eval.models.huggingface import HFLM
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BATCHES = 8
"""How many batches are asked before rows are stored. lm-eval sorts these questions by length, to reduce
padding."""


def ask(
    job: LmEvalJob,
    keys: Sequence[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    holds: Callable[[Sequence[str]], bool],
) -> Iterator[list[LmEvalRow]]:
    """Yield the rows of the questions ``keys``, a few batches at a time. Rows that ``holds`` has are skipped.

    Raises:
        UnfitCandidate: lm-eval cannot make questions of the task, with the field to mend.
        NoNumber: a likelihood came out as NaN or infinite.
    """
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)  # type: ignore[arg-type]
    built: Task | None = None
    requests: dict[int, list[Instance]] = {}
    questions = {key: question for question, key in enumerate(job.keys)}
    size = batch_size * _BATCHES
    for at in range(0, len(keys), size):
        part = keys[at : at + size]
        if holds(part):
            continue
        if built is None:
            built = _built(job, lm)
            requests = _by_question(built)
        asked = {key: requests[questions[key]] for key in part}
        _answer(built, lm, [one for instances in asked.values() for one in instances])
        yield [_row(built, key, instances) for key, instances in asked.items()]


def _built(job: LmEvalJob, lm: HFLM) -> Task:
    """Return the task with all its requests. All are built, because few-shot examples are drawn in the order
    of the questions."""
    from lm_eval.defaults import DEFAULT_OTHER_SEED
    from lm_eval.tasks import TaskManager

    _sandbox_templates()
    files = {split: str(path) for split, path in job.data.items()}
    cache = next(iter(job.data.values())).parent / "cache"
    config = {
        **job.config,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files, "cache_dir": str(cache)},
    }
    chat: dict[str, Any] = {"apply_chat_template": True, "chat_template": lm.apply_chat_template}
    try:
        task = TaskManager(include_defaults=False).load([config])["tasks"][job.name]
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(DEFAULT_OTHER_SEED)
        task.build_all_requests(
            limit=len(job.keys), fewshot_as_multiturn=True, **(chat if job.chat_template else {})
        )
    except (MemoryError, OSError):
        raise
    except Exception as error:  # the task's templates and options may raise anything
        reason = f"lm-eval cannot ask {job.name}: {type(error).__name__}: {str(error)[:300]}; mend its YAML"
        raise UnfitCandidate(field=f"{job.place}.path", reason=reason) from error
    return task


def _sandbox_templates() -> None:
    """Make lm-eval fill templates in Jinja's sandbox: a YAML's template must not reach into Python."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    plain = utils.env
    if isinstance(plain, ImmutableSandboxedEnvironment):
        return
    safe = ImmutableSandboxedEnvironment(undefined=plain.undefined, keep_trailing_newline=True)
    safe.filters.update(plain.filters)
    utils.env = safe


def _by_question(task: Task) -> dict[int, list[Instance]]:
    found: defaultdict[int, list[Instance]] = defaultdict(list)
    for one in task.instances:
        assert one.doc_id is not None
        found[one.doc_id].append(one)
    return {question: sorted(ones, key=lambda one: one.idx) for question, ones in found.items()}


def _answer(task: Task, lm: HFLM, instances: list[Instance]) -> None:
    """Set the model's answers, and the results of the task's filters, in ``instances``."""
    by_kind: defaultdict[str, list[Instance]] = defaultdict(list)
    for one in instances:
        one.resps.clear()
        by_kind[one.request_type].append(one)
    for kind, ones in by_kind.items():
        for one, response in zip(ones, getattr(lm, kind)(ones, disable_tqdm=True), strict=True):
            one.resps.append(response)
    task._instances = instances  # what apply_filters goes through
    task.apply_filters()


def _row(task: Task, key: str, instances: Sequence[Instance]) -> LmEvalRow:
    first = instances[0]
    scores: dict[str, tuple[float, float]] = {}
    for name in first.filtered_resps:
        metrics: Any = task.process_results(first.doc, [one.filtered_resps[name] for one in instances])
        scores |= {
            figure_name(str(first.task_name), metric, name): _score(metric, value)
            for metric, value in metrics.items()
            if metric in FORMS
        }
    responses = tuple(_response(one.resps[0]) for one in instances)
    return LmEvalRow(key=key, responses=responses, scores=scores)


def _response(said: Any) -> Response:
    if isinstance(said, str):
        return said
    likelihood, greedy = said if isinstance(said, tuple) else (said, None)
    if not math.isfinite(likelihood):
        raise NoNumber(f"a question of lm-eval has an answer whose log-likelihood is {likelihood}")
    return float(likelihood) if greedy is None else (float(likelihood), bool(greedy))


def _score(metric: str, value: Any) -> tuple[float, float]:
    """Return a metric's value and weight. For likelihoods: nats, and the number of targets, words or
    bytes."""
    if FORMS[metric].test != "ratio":
        return float(value), 1.0
    likelihood, weight = value if isinstance(value, tuple) else (value, 1)
    return -float(likelihood), float(weight)
