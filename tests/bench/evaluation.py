"""Prompts per second of evaluation: in batches, one by one, and beside what else could write the answers.

Each contender writes greedy answers of up to ``TOKENS`` tokens to the same prompts with one system prompt:
eval's own decoder in batches and one by one, transformers' ``generate`` in the same batches, and the engine's
batch (``Lane``), whose requests join and leave between steps. Their answers are compared with each other.
Beside the wall clock stands the processor time per prompt, which depends less on who else is computing.

Then a whole measurement of a contestant as eval makes it, in seconds per row: answers and likelihoods of the
held-out prompts, and the general-regression set.

Last, the general-regression set as three tasks of lm-evaluation-harness, by eval and by lm-eval's own
``simple_evaluate`` with the same batch size: seconds, and on how many questions both have the same.
"""

from __future__ import annotations

import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine import CACHE, MODEL, QUESTIONS, SYSTEM
from report import write_report
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_basemodel.precision import compute_dtype
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage
from tunewheel_contracts.formats.regression_items import general_items
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval.decoding import Decoder
from tunewheel_eval.harness import ask
from tunewheel_eval.job import ContestantJob, Job, LmEvalJob
from tunewheel_eval.measuring import measure
from tunewheel_eval.prompts import Prompt, example_prompt

ROUNDS = int(os.environ.get("ROUNDS", "3"))
ROWS = int(os.environ.get("ROWS", "64"))
BATCH = 16
TOKENS = 32
ANSWER = '{"category": "battery", "priority": "normal", "reply": "Charge it for an hour and try again."}'
Written = list[list[int]]


def main() -> None:
    base = locate_base_model(MODEL, cache_dir=CACHE)
    dtype = compute_dtype()
    model, tokenizer = load_base(base, dtype=dtype, device="cpu")
    examples = [example(number) for number in range(ROWS)]
    prompts = [
        example_prompt(tokenizer, one, key=one.example_id, max_output_tokens=TOKENS) for one in examples
    ]
    stops = {int(tokenizer.eos_token_id), int(model.generation_config.eos_token_id)}
    decoder = Decoder(model, stop_ids=stops, pad_id=int(tokenizer.pad_token_id or 0))
    contenders: dict[str, Callable[[], Written]] = {
        "eval, in batches": lambda: decoded(decoder, prompts, BATCH),
        "eval, one by one": lambda: decoded(decoder, prompts, 1),
        "transformers.generate, in batches": lambda: generated(model, tokenizer, prompts),
    }
    figures, answers = compare(contenders)
    lm_eval = beside_lm_eval(model, tokenizer)
    # Last: the engine puts layers of its own into a model of its own.
    lane, lane_answers = compare({"engine's batch": engine_batch(base, dtype, prompts)})
    figures |= lane
    answers |= lane_answers
    speed = {name: one["prompts_per_second"] for name, one in figures.items()}
    write_report(
        "evaluation",
        packages=("torch", "transformers", "lm_eval"),
        contenders=figures,
        ratios={
            f"eval in batches over {name}": speed["eval, in batches"] / speed[name]
            for name in list(speed)[1:]
        },
        same_answers={
            name: sum(map(list.__eq__, answers["eval, in batches"], answers[name])) / ROWS
            for name in list(speed)[1:]
        },
        whole_measurement=whole_measurement(base, examples),
        lm_eval=lm_eval,
        precision=dtype,
        rows=ROWS,
        batch=BATCH,
        tokens_per_answer=TOKENS,
        rounds=ROUNDS,
        load_average=os.getloadavg()[0],
    )


def example(number: int) -> ChatExample:
    asked = f"{QUESTIONS[number % len(QUESTIONS)]} My order is {number}."
    return ChatExample(
        example_id=f"example-{number}",
        messages=(
            ChatMessage(role="system", content=SYSTEM),
            ChatMessage(role="user", content=asked),
            ChatMessage(role="assistant", content=ANSWER),
        ),
        group=f"group-{number}",
        trust="expert",
        record_ids=(f"record-{number}",),
    )


def compare(contenders: dict[str, Callable[[], Written]]) -> tuple[dict[str, Any], dict[str, Written]]:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    answers: dict[str, Written] = {}
    for number in range(ROUNDS + 1):
        for name, write in contenders.items():
            began, used = time.perf_counter(), time.process_time()
            answers[name] = write()
            if number:  # the first round warms up
                taken[name].append((time.perf_counter() - began, time.process_time() - used))
                print(f"{name}: {ROWS / taken[name][-1][0]:.2f} prompts/s", file=sys.stderr, flush=True)
    return {
        name: {
            "prompts_per_second": round(ROWS / statistics.median(wall for wall, _ in rounds), 2),
            "processor_ms_per_prompt": round(1000 * statistics.median(cpu for _, cpu in rounds) / ROWS, 1),
        }
        for name, rounds in taken.items()
    }, answers


def decoded(decoder: Decoder, prompts: Sequence[Prompt], size: int) -> Written:
    written: Written = []
    decoder.share_prefix([prompt.context for prompt in prompts])
    for at in range(0, len(prompts), size):
        prefilled = decoder.prefill([prompt.context for prompt in prompts[at : at + size]])
        written += [ids for ids, _ in decoder.generate(prefilled, max_new_tokens=TOKENS)]
    return written


def generated(model: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> Written:
    import torch

    written: Written = []
    for at in range(0, len(prompts), BATCH):
        rows = [list(prompt.context) for prompt in prompts[at : at + BATCH]]
        inputs = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        width = inputs["input_ids"].shape[1]
        ends = {int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)}
        written += [[t for t in row[width:].tolist() if t not in ends] for row in out]
    return written


def engine_batch(base: Any, dtype: Any, prompts: Sequence[Prompt]) -> Callable[[], Written]:
    """Answer ``prompts`` by the engine's own batch, in one thread and without HTTP."""
    from tunewheel_generation.generation import Generation, Progress
    from tunewheel_generation.lane import Lane
    from tunewheel_generation.runner import load_runner

    runner = load_runner(
        base, quantization=None, trained_dtype=dtype, dtype=dtype, rows=BATCH, tokens=512
    )  # fmt: skip

    def write() -> Written:
        made: dict[int, list[int]] = {}

        def deliver(generation: Generation, progress: Progress) -> None:
            if progress.stopped_by != "eos":
                made.setdefault(id(generation), []).append(progress.token.id)

        requests = [Generation(prompt=list(prompt.context), max_tokens=TOKENS) for prompt in prompts]
        waiting = iter(requests)
        lane = Lane(runner, rows=BATCH, prefill_tokens=512, deliver=deliver)
        lane.work(lambda: next(waiting, None))
        while lane.running:
            lane.work(lambda: next(waiting, None))
        return [made.get(id(request), []) for request in requests]

    return write


def whole_measurement(base: Any, examples: Sequence[ChatExample]) -> dict[str, float]:
    """Measure the base as eval does, the model's load excluded."""
    items = general_items()
    with tempfile.TemporaryDirectory() as scratch:
        contestant = ContestantJob(
            role=Role.BASE,
            model_key="base",
            base=BaseModelRef(name=base.name, revision=base.revision),
            rows=Path(scratch) / "base.jsonl",
        )
        job = Job(
            contestants=(contestant,),
            examples=tuple(examples),
            items=items,
            max_output_tokens=TOKENS,
            cache_dir=CACHE,
        )
        seconds: list[float] = []
        measure(job, lambda progress: seconds.append(progress.seconds))
    rows = len(examples) + len(items)
    return {"rows": rows, "seconds": seconds[-1], "seconds_per_row": round(seconds[-1] / rows, 4)}


def lm_eval_tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """Write the general-regression set as tasks of each kind; returns their YAML as lm-eval takes it."""
    items = general_items()
    docs: dict[str, list[dict[str, Any]]] = {
        "choice": [
            {"asked": item.prompt, "choices": list(item.choices), "gold": item.choices.index(item.answer)}
            for item in items
            if item.choices
        ][:ROWS],
        "short": [{"asked": item.prompt, "gold": item.answer} for item in items if not item.choices][:ROWS],
        "text": [{"asked": "", "gold": f"{item.prompt} {item.answer}"} for item in items][:ROWS],
    }
    kinds: dict[str, dict[str, Any]] = {
        "choice": {"output_type": "multiple_choice", "doc_to_choice": "choices"},
        "short": {
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": TOKENS, "do_sample": False},
        },
        "text": {"output_type": "loglikelihood_rolling"},
    }
    found: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(doc) + "\n" for doc in docs[name]), "utf-8")
        place = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}}}
        told = {"task": name, "test_split": "test", "doc_to_text": "asked", "doc_to_target": "gold"}
        found[name] = told | kind | place
    return found


def beside_lm_eval(model: Any, tokenizer: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as scratch:
        tasks = lm_eval_tasks(Path(scratch))

        def ours() -> dict[str, list[Any]]:
            return {name: own_responses(name, config, model, tokenizer) for name, config in tasks.items()}

        def theirs() -> dict[str, list[Any]]:
            lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
            configs = copy.deepcopy(list(tasks.values()))
            manager = TaskManager(include_defaults=False)
            found = simple_evaluate(lm, tasks=configs, task_manager=manager, bootstrap_iters=0)
            assert found is not None
            return {name: [one["resps"] for one in found["samples"][name]] for name in tasks}

        seconds: dict[str, list[float]] = {"eval": [], "simple_evaluate": []}
        answers: dict[str, dict[str, list[Any]]] = {}
        for number in range(ROUNDS + 1):
            for who, answer in (("eval", ours), ("simple_evaluate", theirs)):
                began = time.perf_counter()
                answers[who] = answer()
                if number:  # the first round warms up
                    seconds[who].append(time.perf_counter() - began)
    taken = {who: round(statistics.median(ones), 2) for who, ones in seconds.items()}
    return {
        "seconds": taken,
        "eval over simple_evaluate": round(taken["eval"] / taken["simple_evaluate"], 3),
        "questions": {name: len(ones) for name, ones in answers["eval"].items()},
        "same_responses": {
            name: sum(map(same_responses, answers["eval"][name], answers["simple_evaluate"][name]))
            for name in tasks
        },
    }


def own_responses(name: str, config: dict[str, Any], model: Any, tokenizer: Any) -> list[Any]:
    path = Path(config["dataset_kwargs"]["data_files"]["test"])
    keys = tuple(f"{number:064x}" for number in range(path.read_bytes().count(b"\n")))
    job = LmEvalJob(name=name, place=name, config=config, data={"test": path}, keys=keys)
    parts = ask(job, keys, model, tokenizer, batch_size=BATCH, holds=lambda _: False)
    return [row.responses for part in parts for row in part]


def same_responses(own: Sequence[Any], theirs: Sequence[Sequence[Any]]) -> bool:
    """Whether all responses to a question are equal; likelihoods to a thousandth of a nat, for other batches
    round otherwise."""
    for said, (other,) in zip(own, theirs, strict=True):
        one, two = (each[0] if isinstance(each, tuple) else each for each in (said, other))
        if one != two if isinstance(one, str) else abs(one - two) > 1e-3:
            return False
    return True


if __name__ == "__main__":
    main()
