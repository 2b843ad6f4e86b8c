"""What is learnt: intent accuracy on banking77 after LoRA, QLoRA and full training, beside TF-IDF and a SVM.

SmolLM2-135M-Instruct answers with JSON, ``{"intent": …}``, having seen each training example ``--epochs``
times and no list of the 77 intents. Every method gets the same examples in the same order and batches;
examples are drawn by intent with a fixed seed, and test rows whose text is among all training rows are left
out first. Training and answering are the product's own (``recipe.train``, ``measuring.measure``), each
contender in a process of its own. An answer counts if it is one JSON value with the right intent.

Declared before the first run and not tuned on the test rows: the learning rates below, batches of eight,
rank 16, cosine schedule; ``C`` of the SVM as scikit-learn has it. 2e-3 is what docs/training.md says of a
model this small; full training takes a tenth of an adapter's rate ("LoRA Without Regret", Schulman et al.
2025).

``--data`` is a copy of banking_data of PolyAI-LDN/task-specific-datasets: train.csv and test.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewheel_train.runs.process import environment

ROOT = Path(__file__).resolve().parents[2]
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
SYSTEM = 'You sort the messages of a bank\'s customers. Answer with JSON: {"intent": "..."}'
RATES = {"lora": 2e-3, "qlora": 2e-3, "full": 2e-4}
CONTENDERS = ("svm", *RATES, "base")
SEED = 17
MAX_OUTPUT_TOKENS = 32

Pairs = list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "banking77")
    parser.add_argument("--train-examples", type=int, default=2000)
    parser.add_argument("--test-examples", type=int, default=500)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=0, help="0: all")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--cache-dir", type=Path, default=ROOT / "var" / "cache")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.contender:
        print(json.dumps(measure(chosen.contender, chosen)))
        return
    figures: dict[str, dict[str, Any]] = {}
    for name in chosen.only:  # written after each, so that what is measured is not lost with the next
        figures[name] = in_own_process(name, chosen)
        write(figures, chosen)


def write(figures: dict[str, dict[str, Any]], chosen: argparse.Namespace) -> None:
    from report import write_report

    ratios = {
        f"{name}/{other} accuracy": figures[name]["accuracy"] / figures[other]["accuracy"]
        for name in RATES
        for other in ("svm", "full")
        if name != other and name in figures and figures.get(other, {}).get("accuracy")
    }
    write_report(
        "quality",
        packages=("torch", "transformers", "trl", "peft", "bitsandbytes", "scikit-learn"),
        contenders=figures,
        ratios=ratios,
        learning_rates=RATES,
        train_examples=chosen.train_examples,
        test_examples=chosen.test_examples,
        epochs=chosen.epochs,
        seed=SEED,
    )


def in_own_process(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--contender", name, "--data", str(chosen.data),
        "--train-examples", str(chosen.train_examples), "--test-examples", str(chosen.test_examples),
        "--epochs", str(chosen.epochs), "--threads", str(chosen.threads),
        "--cache-dir", str(chosen.cache_dir),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environment(chosen.threads), stdout=subprocess.PIPE, text=True, check=True
    )
    print(name, done.stdout.splitlines()[-1], file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    train, test = read(chosen.data, chosen.train_examples, chosen.test_examples)
    started, begun = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        if name == "svm":
            answers, trained = classify(train, test), {}
        else:
            folder = Path(scratch)
            trained = fine_tune(name, train, folder, chosen) if name in RATES else {}
            answers = ask(name, test, folder, chosen)
    return {
        **score(answers, [intent for _, intent in test]),
        **trained,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


def read(folder: Path, train_examples: int, test_examples: int) -> tuple[Pairs, Pairs]:
    """Training and test pairs of text and intent, the same for every contender."""
    whole = {split: rows(folder / f"{split}.csv") for split in ("train", "test")}
    known = {plain(text) for text, _ in whole["train"]}
    clean = [(text, intent) for text, intent in whole["test"] if plain(text) not in known]
    return by_intent(whole["train"], train_examples), by_intent(clean, test_examples)


def rows(path: Path) -> Pairs:
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["text"].strip(), row["category"]) for row in csv.DictReader(file)]


def plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def by_intent(pairs: Pairs, count: int) -> Pairs:
    """``count`` pairs, as evenly over the intents as their numbers allow, in a seeded order."""
    rng = random.Random(SEED)
    piles: dict[str, Pairs] = defaultdict(list)
    for text, intent in sorted(pairs):
        piles[intent].append((text, intent))
    turns = sorted(piles)
    rng.shuffle(turns)
    for intent in turns:
        rng.shuffle(piles[intent])
    taken: Pairs = []
    while len(taken) < count and any(piles.values()):
        taken += [piles[intent].pop() for intent in turns if piles[intent]]
    taken = taken[:count]
    rng.shuffle(taken)
    return taken


def classify(train: Pairs, test: Pairs) -> list[str]:
    """The reference: words and pairs of words, weighed, and a linear classifier; answers as JSON."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC(random_state=SEED)
    )
    model.fit([text for text, _ in train], [intent for _, intent in train])
    return [answer(intent) for intent in model.predict([text for text, _ in test])]


def answer(intent: str) -> str:
    return json.dumps({"intent": str(intent)})


def messages(text: str, intent: str) -> list[dict[str, str]]:
    turns = (("system", SYSTEM), ("user", text), ("assistant", answer(intent)))
    return [{"role": role, "content": content} for role, content in turns]


def fine_tune(method: str, train: Pairs, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    import polars as pl
    from tunewheel_contracts.formats.recipe import TrainMethod, TrainSpec
    from tunewheel_train.job import Job
    from tunewheel_train.recipe import train as train_by_recipe

    path = folder / "train.parquet"
    table = [
        {"example_id": f"ex-{n:05}", "messages": messages(text, intent)}
        for n, (text, intent) in enumerate(train)
    ]
    pl.DataFrame(table).write_parquet(path)
    recipe = TrainSpec(
        method=TrainMethod(method), learning_rate=RATES[method], epochs=chosen.epochs, patience=0,
        checkpoint_steps=10**6, max_tokens=512, seed=SEED,
    )  # fmt: skip
    job = Job(
        run_id=f"run-{method}", base_model=BASE, train_path=path, output_dir=folder / "model",
        work_dir=folder / "work", cache_dir=chosen.cache_dir, recipe=recipe,
    )  # fmt: skip
    done = train_by_recipe(job, report=note)
    assert done.usage is not None
    return {
        "learning_rate": RATES[method],
        "steps": done.steps,
        "tokens": done.tokens,
        "final_loss": round(done.metrics["final_loss"], 4),
        "tokens_per_second": round(done.usage.tokens_per_second, 1),
        "peak_bytes": done.usage.peak_bytes,
        "dtype": done.dtype,
    }


def note(message: Any) -> None:
    print(message.model_dump_json(exclude_none=True)[:200], file=sys.stderr)


def ask(name: str, test: Pairs, folder: Path, chosen: argparse.Namespace) -> list[str]:
    """What the model writes for each test row, by the evaluation's own decoding."""
    from tunewheel_basemodel.locate import locate_base_model
    from tunewheel_contracts.formats.dataset import ChatExample
    from tunewheel_contracts.formats.run import BaseModelRef
    from tunewheel_contracts.formats.scorecard import Role
    from tunewheel_eval.job import ContestantJob, Job
    from tunewheel_eval.measurement import example_key, read_measurement
    from tunewheel_eval.measuring import measure as measure_contestants

    base = locate_base_model(BASE, cache_dir=chosen.cache_dir)
    examples = [
        ChatExample.model_validate(
            {"example_id": f"test-{n:05}", "messages": messages(text, intent), "group": f"test-{n:05}",
             "trust": "expert", "record_ids": ()}
        )
        for n, (text, intent) in enumerate(test)
    ]  # fmt: skip
    contestant = ContestantJob(
        role=Role.CANDIDATE, model_key=name, base=BaseModelRef(name=base.name, revision=base.revision),
        quantization="nf4" if name == "qlora" else None, whole_model=name == "full",
        directory=folder / "model" if name in RATES else None, rows=folder / "rows.jsonl",
    )  # fmt: skip
    job = Job(
        contestants=(contestant,), examples=tuple(examples), items=(), max_output_tokens=MAX_OUTPUT_TOKENS,
        cache_dir=chosen.cache_dir, threads=chosen.threads,
    )  # fmt: skip
    measure_contestants(job, note)
    found = read_measurement(contestant.rows.read_text("utf-8"))
    assert found is not None
    keys = [example_key(one, max_output_tokens=MAX_OUTPUT_TOKENS) for one in examples]
    return [str(getattr(found.rows[key], "output")) for key in keys]  # noqa: B009


def score(answers: Sequence[str], intents: Sequence[str]) -> dict[str, Any]:
    """Share of right answers with its 95 % interval (Wilson's), and of answers that are JSON with a known
    intent."""
    from scipy.stats import binomtest
    from tunewheel_outputs.labels import label_of, same_label

    right = sum(same_label(a, answer(i), "intent") for a, i in zip(answers, intents, strict=True))
    interval = binomtest(right, len(intents)).proportion_ci(method="wilson")
    known = {json.dumps(intent) for intent in intents}
    valid = sum(json.dumps(label_of(a, "intent"), default=str) in known for a in answers)
    return {
        "accuracy": right / len(intents),
        "accuracy_95": [round(interval.low, 3), round(interval.high, 3)],
        "known_intent": valid / len(intents),
        "right": right,
        "of": len(intents),
    }


if __name__ == "__main__":
    main()
