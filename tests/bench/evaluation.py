"""Prompts per second of evaluation: in batches, one by one, and beside what else could write the answers.

    make bench NAME=evaluation        ROWS=32 ROUNDS=2 by default; three to four minutes on two cores

Each contender writes greedy answers of up to ``TOKENS`` tokens to the same prompts with one system prompt, in
float32: eval's writer in batches and one by one, transformers' ``generate`` likewise, and the engine's batch,
whose requests join and leave between steps. All but ``generate`` are one package, so that they
differ in who waits for whom. One by one is measured on ``ALONE`` prompts. Beside the wall clock stands the
processor time per prompt, which depends less on who else is computing.

Then a whole measurement of two contestants, base and adapter, as eval makes it, in each precision that the
processor is good at: answers and likelihoods of the held-out prompts, and the general-regression set. Its
seconds hold the model's load.

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

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as eval's and the engine's processes have it

from engine import CACHE, MODEL, QUESTIONS, SYSTEM, write_adapters
from report import write_report
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_basemodel.precision import compute_dtype
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage
from tunewheel_contracts.formats.regression_items import general_items
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval.harness import ask
from tunewheel_eval.job import ContestantJob, Job, LmEvalJob
from tunewheel_eval.measuring import measure
from tunewheel_eval.prompts import example_prompt
from tunewheel_generation.generation import Generation, Progress
from tunewheel_generation.lane import Lane
from tunewheel_generation.offline import Writer
from tunewheel_generation.runner import Runner, load_runner

ROUNDS = int(os.environ.get("ROUNDS", "2"))
ROWS = int(os.environ.get("ROWS", "32"))
ALONE = max(1, ROWS // 4)
BATCH = 16
TOKENS = 32
ANSWER = '{"category": "battery", "priority": "normal", "reply": "Charge it for an hour and try again."}'
BATCHES = "eval, in batches"
Prompts = list[list[int]]
Contender = tuple[Callable[[Prompts], Prompts], int]
"""What answers prompts, and how many of them it is given."""


def main() -> None:
    base = locate_base_model(MODEL, cache_dir=CACHE)
    model, tokenizer = load_base(base, dtype="float32", device="cpu")
    examples = [example(number) for number in range(ROWS)]
    prompts = [
        list(example_prompt(tokenizer, one, key=one.example_id, max_output_tokens=TOKENS).context)
        for one in examples
    ]
    runner = load_runner(
        base, quantization=None, trained_dtype="float32", dtype="float32", rows=BATCH, tokens=512
    )
    contenders: dict[str, Contender] = {
        BATCHES: (lambda asked: written(runner, asked, BATCH), ROWS),
        "eval, one by one": (lambda asked: written(runner, asked, 1), ALONE),
        "transformers.generate, in batches": (lambda asked: generated(model, tokenizer, asked, BATCH), ROWS),
        "transformers.generate, one by one": (lambda asked: generated(model, tokenizer, asked, 1), ALONE),
        "engine's batch": (lambda asked: served(runner, asked), ROWS),
    }
    figures, answers = compare(contenders, prompts)
    ours = figures[BATCHES]
    others = [name for name in figures if name != BATCHES]
    lm_eval = beside_lm_eval(model, tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        write_adapters(model, Path(scratch), 1)
        whole = {
            precision: whole_measurement(base, examples, Path(scratch), precision)
            for precision in dict.fromkeys(("float32", compute_dtype()))
        }
    print_table(figures, whole)
    write_report(
        "evaluation",
        packages=("torch", "transformers", "lm_eval"),
        contenders=figures,
        ratios={
            f"{BATCHES} over {name}": ours["prompts_per_second"] / figures[name]["prompts_per_second"]
            for name in others
        },
        processor_ratios={
            f"{name} over {BATCHES}": round(
                figures[name]["processor_ms_per_prompt"] / ours["processor_ms_per_prompt"], 3
            )
            for name in others
        },
        same_answers={
            name: sum(map(list.__eq__, answers[BATCHES], answers[name])) / len(answers[name])
            for name in others
        },
        whole_measurement=whole,
        lm_eval=lm_eval,
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


def compare(
    contenders: dict[str, Contender], prompts: Prompts
) -> tuple[dict[str, dict[str, float]], dict[str, Prompts]]:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    answers: dict[str, Prompts] = {}
    for write, _ in contenders.values():
        write(prompts[:2])  # warms up
    for _ in range(ROUNDS):
        for name, (write, count) in contenders.items():
            began, used = time.perf_counter(), time.process_time()
            answers[name] = write(prompts[:count])
            wall, cpu = time.perf_counter() - began, time.process_time() - used
            taken[name].append((wall / count, cpu / count))
            print(f"{name}: {count / wall:.2f} prompts/s", file=sys.stderr, flush=True)
    return {
        name: {
            "prompts": contenders[name][1],
            "prompts_per_second": round(1 / statistics.median(wall for wall, _ in rounds), 2),
            "processor_ms_per_prompt": round(1000 * statistics.median(cpu for _, cpu in rounds), 1),
        }
        for name, rounds in taken.items()
    }, answers


def written(runner: Runner, prompts: Prompts, size: int) -> Prompts:
    writer = Writer(runner)
    writer.share(prompts)
    found: Prompts = []
    for at in range(0, len(prompts), size):
        batch = [Generation(prompt, TOKENS) for prompt in prompts[at : at + size]]
        found += [answer.tokens for answer in writer.answer(batch)]
    return found


def generated(model: Any, tokenizer: Any, prompts: Prompts, size: int) -> Prompts:
    import torch

    found: Prompts = []
    ends = {int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)}
    for at in range(0, len(prompts), size):
        rows = prompts[at : at + size]
        inputs = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        width = inputs["input_ids"].shape[1]
        found += [[t for t in row[width:].tolist() if t not in ends] for row in out]
    return found


def served(runner: Runner, prompts: Prompts) -> Prompts:
    """Answer ``prompts`` by the engine's batch, in one thread and without HTTP."""
    made: dict[Generation, list[int]] = {}

    def deliver(generation: Generation, progress: Progress) -> None:
        if progress.stopped_by != "eos":
            made[generation].append(progress.token.id)

    runner.reserve(rows=BATCH, tokens=512)
    lane = Lane(runner, rows=BATCH, prefill_tokens=256, deliver=deliver)
    requests = [Generation(prompt, TOKENS) for prompt in prompts]
    made.update((request, []) for request in requests)
    waiting = iter(requests)
    lane.work(lambda: next(waiting, None))
    while lane.running:
        lane.work(lambda: next(waiting, None))
    return list(made.values())


def whole_measurement(
    base: BaseModel, examples: Sequence[ChatExample], folder: Path, precision: str
) -> dict[str, float]:
    """Measure the base and an adapter as eval does."""
    items = general_items()
    ref = BaseModelRef(name=base.name, revision=base.revision)
    contestants = [
        ContestantJob(
            role=role,
            model_key=role.value,
            base=ref,
            directory=directory,
            rows=folder / f"{precision}-{role.value}.jsonl",
        )
        for role, directory in ((Role.CANDIDATE, folder / "adapter-0"), (Role.BASE, None))
    ]
    job = Job(
        contestants=tuple(contestants),
        examples=tuple(examples),
        items=items,
        max_output_tokens=TOKENS,
        cache_dir=CACHE,
        dtype=precision,  # type: ignore[arg-type]
    )
    began, used = time.perf_counter(), sum(os.times()[:4])  # those of the processes that answer too
    measure(job, lambda _: None)
    wall, cpu = time.perf_counter() - began, sum(os.times()[:4]) - used
    rows = len(contestants) * (len(examples) + len(items))
    return {
        "rows": rows,
        "seconds": round(wall, 1),
        "seconds_per_row": round(wall / rows, 4),
        "processor_seconds_per_row": round(cpu / rows, 4),
    }


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


def print_table(figures: dict[str, dict[str, float]], whole: dict[str, dict[str, float]]) -> None:
    print(f"{'':36}{'prompts/s':>12}{'processor ms/prompt':>22}", file=sys.stderr)
    for name, one in figures.items():
        speed, used = one["prompts_per_second"], one["processor_ms_per_prompt"]
        print(f"{name:36}{speed:12.2f}{used:22.1f}", file=sys.stderr)
    print(f"{'whole measurement':36}{'s/row':>12}{'processor s/row':>22}", file=sys.stderr)
    for name, one in whole.items():
        seconds, used = one["seconds_per_row"], one["processor_seconds_per_row"]
        print(f"{name:36}{seconds:12.3f}{used:22.3f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
