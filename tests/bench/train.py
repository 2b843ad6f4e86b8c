"""Training tokens per second and losses by method, each beside TRL's stock SFTTrainer on the same batches.

SmolLM2-135M-Instruct on the help desk's tickets, each contender in a process of its own with the service's
environment. Tokens are those of the examples, padding excluded; the first step is not counted. Where others
compute on the machine too, wall time says little: ``tokens_per_cpu_second`` counts the time that this process
was given. The losses of all are drawn over each other in ``var/bench/train.svg``.

``--llamafactory PYTHON`` names an interpreter that has LLaMA-Factory (a virtual environment of its own),
which then is another contender, on the same conversations in the same batches.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewheel_basemodel.precision import Precision
from tunewheel_train.runs.process import environment

ROOT = Path(__file__).resolve().parents[2]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
SYSTEM = "You are the help desk of Larkspur Mobility. Answer with JSON: category, priority, reply."
BATCH = 8
STEPS = 8
RATES = {"full": 5e-5}
"""At the adapters' 1e-3 ``full`` leaps about, and a rounding more or less ends elsewhere."""
CONTENDERS = ("lora", "trl_lora", "qlora", "trl_qlora", "full", "trl_full", "lora_padded")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--llamafactory", type=Path)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contender:
        print(json.dumps(measure(chosen.contender, chosen)))
        return
    from curves import write_curves
    from report import write_report

    names = [*chosen.only, *(["llamafactory"] if chosen.llamafactory else [])]
    figures = {name: in_own_process(name, chosen) for name in names}
    ratios: dict[str, float] = {}
    for name, found in figures.items():
        stock = figures.get(f"trl_{name.removesuffix('_padded')}")
        if stock is not None:
            for speed in ("tokens_per_cpu_second", "tokens_per_second"):
                ratios[f"{name}/trl_{name.removesuffix('_padded')} {speed}"] = found[speed] / stock[speed]
            ratios[f"{name}: largest difference of a step's loss"] = loss_difference(found, stock)
    if {"lora", "llamafactory"} <= figures.keys():
        ours, theirs = (figures[name]["tokens_per_cpu_second"] for name in ("lora", "llamafactory"))
        ratios["lora/llamafactory tokens_per_cpu_second"] = ours / theirs
        apart = loss_difference(figures["llamafactory"], figures["lora"])
        ratios["llamafactory: largest difference of a step's loss"] = apart
    write_report(
        "train",
        packages=("torch", "transformers", "trl", "peft", "bitsandbytes"),
        contenders=figures,
        ratios=ratios,
        batch_size=BATCH,
        steps=chosen.steps,
    )
    write_curves(ROOT / "var" / "bench" / "train.svg", {n: found["losses"] for n, found in figures.items()})


def loss_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest relative difference between the losses of the same step."""
    pairs = zip(one["losses"], other["losses"], strict=True)
    return max(abs(a - b) / b for a, b in pairs)


def in_own_process(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--contender", name, "--steps", str(chosen.steps),
        "--dtype", chosen.dtype, "--cache-dir", str(chosen.cache_dir),
        *(["--llamafactory", str(chosen.llamafactory)] if chosen.llamafactory else []),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment(0), stdout=subprocess.PIPE, text=True, check=True)
    print(name, done.stdout.splitlines()[-1], file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    from tunewheel_basemodel.locate import locate_base_model
    from tunewheel_basemodel.precision import compute_dtype
    from tunewheel_contracts.formats.methods import TrainMethod
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_train.data.datasets import encode_examples, token_stats
    from tunewheel_train.data.schedule import plan_steps
    from tunewheel_train.job import Job
    from tunewheel_train.model import modeling
    from tunewheel_train.trainers import trl_config

    base = locate_base_model(BASE, cache_dir=chosen.cache_dir)
    method = "lora" if name == "llamafactory" else name.removeprefix("trl_").removesuffix("_padded")
    rate = RATES.get(method, 1e-3)
    recipe = TrainSpec(
        method=TrainMethod(method), learning_rate=rate, warmup_fraction=0.0, scheduler="constant",
        checkpoint_steps=10**6, batch_size=BATCH, micro_batch_size=BATCH,
    )  # fmt: skip
    number = compute_dtype() if chosen.dtype == "auto" else chosen.dtype
    rows = {row["example_id"]: row for row in tickets(BATCH * 40)}
    examples, _ = encode_examples([*rows.values()], modeling.load_tokenizer(base), max_tokens=256)
    plan = plan_steps([len(e) for e in examples], batch_size=BATCH, epochs=1, seed=17)[: chosen.steps + 1]
    clock = Clock([sum(len(examples[i]) for i in step) for step in plan])
    if name == "llamafactory":
        ordered = [rows[examples[i].example_id] for step in plan for i in step]
        return with_factory(chosen, ordered, base, recipe, clock, number)
    model, tokenizer = modeling.load(base, recipe, precision=number)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = Job(
            run_id="run-bench", base_model=BASE, train_path=folder, output_dir=folder, work_dir=folder,
            cache_dir=chosen.cache_dir, recipe=recipe,
        )  # fmt: skip
        told = trl_config.trl_arguments(job, total_steps=len(plan), learning_rate=rate, precision=number)
        arguments = trl_config.examples_config(told)
        trainer = make_trainer(name, model, tokenizer, arguments, examples, plan)
        trainer.add_callback(clock.callback())
        trainer.train()
    stats = token_stats(examples)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        **clock.figures(),
        "dtype": number,
        "mean_tokens_per_example": round(stats.tokens / stats.examples, 1),
        "mean_assistant_tokens": round(stats.assistant / stats.examples, 1),
        "losses": [round(loss, 4) for loss in losses],
    }


def with_factory(
    chosen: argparse.Namespace,
    rows: list[dict[str, Any]],
    base: Any,
    recipe: Any,
    clock: Clock,
    number: Precision,
) -> dict[str, Any]:
    import factory
    from tunewheel_train.model import modeling

    with tempfile.TemporaryDirectory() as scratch:
        adapter = Path(scratch) / "adapter"
        model, _ = modeling.load(base, recipe, precision=number)
        model.save_pretrained(adapter)
        del model
        told = factory.run(
            chosen.llamafactory, rows, model=base.path, adapter=adapter, folder=Path(scratch), batch=BATCH,
            steps=len(rows) // BATCH, bf16=number == "bfloat16",
        )  # fmt: skip
    clock.marks.extend((wall, cpu) for wall, cpu in told["marks"])
    return {
        **clock.figures(),
        "peak_rss_bytes": told["peak_rss_bytes"],
        "dtype": number,
        "losses": [round(loss, 4) for loss in told["losses"]],
        "versions": told["versions"],
    }


def make_trainer(
    name: str,
    model: Any,
    tokenizer: Any,
    arguments: Any,
    examples: Sequence[Any],
    plan: Sequence[Sequence[int]],
) -> Any:
    from tunewheel_train.model import modeling
    from tunewheel_train.trainers import trl_config
    from tunewheel_train.trainers.course import Course
    from tunewheel_train.trainers.sft_trainer import SftTrainer

    if name.startswith("trl"):
        return stock_trainer(model, tokenizer, arguments, [examples[i] for step in plan for i in step])
    packed = name != "lora_padded"
    if packed:
        modeling.use_packed_rows(model, examples)
    trainer = SftTrainer(
        course=Course(examples, plan, BATCH), model=model, processing_class=tokenizer, args=arguments,
        train_dataset=trl_config.as_dataset([{"input_ids": list(e.input_ids)} for e in examples]),
        packed=packed, share_prefix=True,
    )  # fmt: skip
    modeling.prepare_parameters(trainer.model)
    return trainer


def stock_trainer(model: Any, tokenizer: Any, arguments: Any, examples: Sequence[Any]) -> Any:
    """TRL as it comes, on the same examples in the same batches, with the loss on the same tokens."""
    from datasets import Dataset
    from trl import SFTTrainer

    arguments.per_device_train_batch_size = BATCH
    arguments.train_sampling_strategy = "sequential"
    labels = [[t if m else -100 for t, m in zip(e.input_ids, e.mask, strict=True)] for e in examples]
    rows = Dataset.from_dict({"input_ids": [list(e.input_ids) for e in examples], "labels": labels})
    return SFTTrainer(model=model, processing_class=tokenizer, args=arguments, train_dataset=rows)


class Clock:
    """Wall and processor seconds of every step but the first."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        self.marks: list[tuple[float, float]] = []

    def callback(self) -> Any:
        from transformers import TrainerCallback

        marks = self.marks

        class Mark(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                marks.append((time.perf_counter(), time.process_time()))

        return Mark()

    def figures(self) -> dict[str, float]:
        walls = [b[0] - a[0] for a, b in zip(self.marks, self.marks[1:], strict=False)]
        counted = self._tokens[1 : len(self.marks)]
        cpu = self.marks[-1][1] - self.marks[0][1]
        return {
            "tokens_per_second": round(sum(counted) / sum(walls), 1),
            "best_step_tokens_per_second": round(max(t / w for t, w in zip(counted, walls, strict=True)), 1),
            "tokens_per_cpu_second": round(sum(counted) / cpu, 1),
            "step_seconds": round(sum(walls) / len(walls), 3),
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


def tickets(count: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for line in (ROOT / "examples" / "helpdesk" / "tickets.jsonl").read_text().splitlines():
        ticket = json.loads(line)
        if isinstance(ticket["answer"], dict):
            question = f"{ticket['subject']}\n\n{ticket['body']}"
            messages = [("system", SYSTEM), ("user", question), ("assistant", json.dumps(ticket["answer"]))]
            rows.append(
                {
                    "example_id": ticket["ticket_id"],
                    "messages": [{"role": role, "content": content} for role, content in messages],
                }
            )
    return rows[:count]


if __name__ == "__main__":
    main()
