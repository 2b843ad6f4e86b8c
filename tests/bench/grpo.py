"""What a reward adds to training on examples: intents of banking77 after LoRA alone, and after LoRA and GRPO.

SmolLM2-135M-Instruct answers with JSON, ``{"intent": …}``, for twenty intents. All contenders train on the
same few rows, of which a fifth validates, and answer the same held-out rows, whose texts are among no
training rows. The score of ``grpo`` is the mean of label_accuracy and valid_output. The others get one step
of the reward at a rate of nothing, so that they leave the same rows to validation. ``longer`` trains on the
examples for as many further epochs as there are steps of the reward: what else the time of the reward could
have bought. Training and answering are the product's own, each contender in a process of its own; with
``--general 20`` each also answers general questions, as the evaluation asks them, against the base.

Declared before the first run and not tuned on the test rows: all rates, ``--rows``, ``--epochs`` and the
reward's numbers. The report has the difference of two contenders over the same rows with its 95 % interval,
by the test of the verdicts.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import quality
from tunewheel_train.runs.process import environment

CONTENDERS = ("lora", "grpo", "longer", "base")
SEED = 17
REWARD = {"steps": 100, "prompts": 8, "answers": 4, "learning_rate": 1e-3}
NO_REWARD = {"steps": 1, "prompts": 1, "answers": 2, "learning_rate": 1e-12}
METRICS = ("label_accuracy", "valid_output")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=quality.DATA / "banking77")
    parser.add_argument("--intents", type=int, default=20)
    parser.add_argument("--rows", type=int, default=220, help="training rows, validation rows included")
    parser.add_argument("--test-examples", type=int, default=600)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=REWARD["steps"], help="of the reward")
    parser.add_argument("--rate", type=float, default=REWARD["learning_rate"], help="of the reward")
    parser.add_argument("--general", type=int, default=0, help="items of each general set; 0: none")
    parser.add_argument("--threads", type=int, default=1, help="0: all")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--cache-dir", type=Path, default=quality.ROOT / "var" / "cache")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not chosen.data.is_dir():
        sys.exit(f"{chosen.data} is missing: the benchmark needs banking77's train.csv and test.csv there")
    if chosen.contender:
        print(json.dumps(measure(chosen.contender, chosen)))
        return
    figures: dict[str, dict[str, Any]] = {}
    for name in chosen.only:  # written after each, so that what is measured is not lost with the next
        figures[name] = in_own_process(name, chosen)
        write(figures, chosen)


def write(figures: dict[str, dict[str, Any]], chosen: argparse.Namespace) -> None:
    from report import write_report

    differences = {
        f"{name} - {other} {figure}": difference(figures[name][figure], figures[other][figure])
        for name, other in (("grpo", "lora"), ("grpo", "longer"), ("grpo", "base"), ("lora", "base"))
        if name in figures and other in figures
        for figure in ("right_rows", "general_rows")
        if figures[name][figure]
    }
    write_report(
        "grpo",
        packages=("torch", "transformers", "trl", "peft"),
        contenders={
            name: {key: value for key, value in found.items() if not key.endswith("_rows")}
            for name, found in figures.items()
        },
        ratios={},
        differences=differences,
        reward=reward_of(chosen),
        rows=chosen.rows,
        test_examples=chosen.test_examples,
        epochs=chosen.epochs,
        seed=SEED,
    )


def reward_of(chosen: argparse.Namespace) -> dict[str, Any]:
    return REWARD | {"steps": chosen.steps, "learning_rate": chosen.rate}


def difference(one: list[bool], other: list[bool]) -> list[float]:
    """Return how much the share of right rows differs, with its 95 % interval."""
    import numpy as np
    from tunewheel_verdicts.significance import Scores, compare

    a, b = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    found = compare(Scores(a), Scores(b), np.arange(len(a)), test="proportion", alpha=0.025)
    return [round(float(figure), 3) for figure in (a.mean() - b.mean(), found.low, found.high)]


def in_own_process(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    told = (
        "data",
        "intents",
        "rows",
        "test_examples",
        "epochs",
        "steps",
        "rate",
        "general",
        "threads",
        "cache_dir",
    )
    given = [text for one in told for text in (f"--{one.replace('_', '-')}", str(getattr(chosen, one)))]
    command = [sys.executable, __file__, "--contender", name, *given]
    done = subprocess.run(
        command, env=environment(chosen.threads), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def read(chosen: argparse.Namespace, rows: int | None = None) -> tuple[quality.Pairs, quality.Pairs]:
    """Training and test pairs of text and intent, of intents that are drawn by the seed. ``rows``: how many
    training pairs, instead of the chosen number."""
    whole = {split: quality.rows(chosen.data / f"{split}.csv") for split in ("train", "test")}
    intents = sorted({intent for _, intent in whole["train"]})
    drawn = set(random.Random(SEED).sample(intents, chosen.intents))
    known = {quality.plain(text) for text, _ in whole["train"]}
    train = [pair for pair in whole["train"] if pair[1] in drawn]
    test = [pair for pair in whole["test"] if pair[1] in drawn and quality.plain(pair[0]) not in known]
    return quality.by_intent(train, rows or chosen.rows), quality.by_intent(test, chosen.test_examples)


def measure(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    from tunewheel_outputs.labels import same_label

    train, test = read(chosen)
    started, begun = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = fine_tune(name, train, folder, chosen) if name != "base" else {}
        asked = "base" if name == "base" else "lora"  # as what ``quality`` loads the adapter
        answers, general = quality.ask(asked, test, folder, chosen)
    right = [same_label(a, quality.answer(i), "intent") for a, (_, i) in zip(answers, test, strict=True)]
    return {
        **quality.score(answers, [intent for _, intent in test]),
        **found,
        "right_rows": right,
        "general_rows": [one for rows in general.values() for one in rows],
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


def fine_tune(name: str, train: quality.Pairs, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    import polars as pl
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_contracts.formats.task_spec import TaskSpec
    from tunewheel_train.job import Job, Rewarded
    from tunewheel_train.recipe import train as train_by_recipe

    path = folder / "train.parquet"
    table = [
        {"example_id": f"ex-{number:05}", "messages": quality.messages(text, intent)}
        for number, (text, intent) in enumerate(train)
    ]
    pl.DataFrame(table).write_parquet(path)
    intents = sorted({intent for _, intent in train})
    task = TaskSpec.model_validate(
        {
            "system_prompt": quality.SYSTEM, "label_field": "intent",
            "max_output_tokens": quality.MAX_OUTPUT_TOKENS,
            "output_rules": [{"rule": "allowed_values", "field": "intent", "values": intents}],
        }
    )  # fmt: skip
    batch = 8
    epochs = chosen.epochs + (chosen.steps * batch / len(train) if name == "longer" else 0)
    recipe = TrainSpec.model_validate(
        {
            "learning_rate": quality.RATES["lora"], "epochs": epochs, "batch_size": batch,
            "micro_batch_size": batch, "validation_fraction": 0.2, "checkpoint_steps": 10, "max_tokens": 512,
            "seed": SEED, "patience": 0, "reward": reward_of(chosen) if name == "grpo" else NO_REWARD,
        }
    )  # fmt: skip
    job = Job(
        run_id=f"run-{name}", base_model=quality.BASE, train_path=path, output_dir=folder / "model",
        work_dir=folder / "work", cache_dir=chosen.cache_dir, recipe=recipe,
        rewarded=Rewarded(task=task, metrics=METRICS),
    )  # fmt: skip
    done = train_by_recipe(job, report=quality.note)
    told = {key: round(value, 4) for key, value in done.metrics.items()}
    return {"steps": done.steps, "tokens": done.tokens, "train_seconds": round(done.wall_seconds, 1), **told}


if __name__ == "__main__":
    main()
