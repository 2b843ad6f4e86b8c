"""What is learnt, and what is forgotten: intent accuracy on banking77 after LoRA, QLoRA and full training,
beside TF-IDF and a SVM; with ``--general`` also general questions before and after, and after replay.

SmolLM2-135M-Instruct answers with JSON, ``{"intent": …}``, having seen each training example ``--epochs``
times and no list of the 77 intents. Every method gets the same examples in the same order and batches;
examples are drawn by intent with a fixed seed, and test rows whose text is among all training rows are left
out first. Training and answering are the product's own (``recipe.train``, ``measuring.measure``), each
contender in a process of its own. An answer counts if it is one JSON value with the right intent.

Declared before the first run and not tuned on the test rows: the learning rates below, batches of eight,
rank 16, cosine schedule; ``C`` of the SVM as scikit-learn has it. 2e-3 is what docs/training.md says of a
model this small; full training takes a tenth of an adapter's rate ("LoRA Without Regret", Schulman et al.
2025). ``lora_replay`` is LoRA with ``--replay-share`` of its training rows taken from dolly's instructions.

``--general 40`` asks each model that many items of each general set as well (``general_sets.py``), by the
evaluation's own reading of them, and compares each model with the base item by item.

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

from general_sets import general_items, replayed
from tunewheel_train.runs.process import environment

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
SYSTEM = 'You sort the messages of a bank\'s customers. Answer with JSON: {"intent": "..."}'
RATES = {"lora": 2e-3, "qlora": 2e-3, "full": 2e-4, "lora_replay": 2e-3}
CONTENDERS = ("svm", "lora", "qlora", "full", "base")
SEED = 17
MAX_OUTPUT_TOKENS = 32

Pairs = list[tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA / "banking77")
    parser.add_argument("--train-examples", type=int, default=2000)
    parser.add_argument("--test-examples", type=int, default=500)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--general", type=int, default=0, help="items of each general set; 0: none")
    parser.add_argument("--replay-share", type=float, default=0.2, help="of lora_replay's training rows")
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
        for name in ("lora", "qlora", "full")
        for other in ("svm", "full")
        if name != other and name in figures and figures.get(other, {}).get("accuracy")
    }
    if "base" in figures and chosen.general:
        for name in figures.keys() - {"base", "svm"}:
            figures[name]["general_change"] = changes(figures[name], figures["base"])
    write_report(
        "quality",
        packages=("torch", "transformers", "trl", "peft", "bitsandbytes", "scikit-learn"),
        contenders=figures,
        ratios=ratios,
        learning_rates=RATES,
        train_examples=chosen.train_examples,
        test_examples=chosen.test_examples,
        epochs=chosen.epochs,
        replay_share=chosen.replay_share,
        seed=SEED,
    )


def changes(after: dict[str, Any], before: dict[str, Any]) -> dict[str, list[float]]:
    """Return by set, and of all items, how much the share of right items changed, with its 95 % interval:
    item by item, by the test that verdicts go by."""
    import numpy as np
    from tunewheel_verdicts.significance import Scores, compare

    found: dict[str, list[float]] = {}
    whole = [(kind, *pair) for kind in before["general_right"] for pair in zip(
        after["general_right"][kind], before["general_right"][kind], strict=True)]  # fmt: skip
    for kind in [*before["general_right"], "all"]:
        pairs = np.asarray([(a, b) for name, a, b in whole if kind in (name, "all")], dtype=float)
        one = compare(
            Scores(pairs[:, 0]), Scores(pairs[:, 1]), np.arange(len(pairs)), test="proportion", alpha=0.025
        )
        found[kind] = [
            round(float(figure), 3) for figure in (pairs[:, 0].mean() - pairs[:, 1].mean(), one.low, one.high)
        ]
    return found


def in_own_process(name: str, chosen: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, __file__, "--contender", name, "--data", str(chosen.data),
        "--train-examples", str(chosen.train_examples), "--test-examples", str(chosen.test_examples),
        "--epochs", str(chosen.epochs), "--threads", str(chosen.threads),
        "--cache-dir", str(chosen.cache_dir), "--general", str(chosen.general),
        "--replay-share", str(chosen.replay_share),
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
            answers, found = classify(train, test), {}
        else:
            folder = Path(scratch)
            found = fine_tune(name, train, folder, chosen) if name in RATES else {}
            answers, general = ask(name, test, folder, chosen)
            found |= {"general_right": general} if general else {}
    return {
        **score(answers, [intent for _, intent in test]),
        **found,
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
    from tunewheel_contracts.formats.methods import TrainMethod
    from tunewheel_contracts.formats.recipe import TrainSpec
    from tunewheel_train.job import Job
    from tunewheel_train.recipe import train as train_by_recipe

    path = folder / "train.parquet"
    conversations = [messages(text, intent) for text, intent in train]
    if method == "lora_replay":
        share = chosen.replay_share
        conversations += replayed(DATA, round(len(train) * share / (1 - share)))
        random.Random(SEED).shuffle(conversations)
    table = [{"example_id": f"ex-{n:05}", "messages": turns} for n, turns in enumerate(conversations)]
    pl.DataFrame(table).write_parquet(path)
    recipe = TrainSpec(
        method=TrainMethod(method.removesuffix("_replay")), learning_rate=RATES[method],
        epochs=chosen.epochs, patience=0, checkpoint_steps=10**6, max_tokens=512, seed=SEED,
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


def ask(
    name: str, test: Pairs, folder: Path, chosen: argparse.Namespace
) -> tuple[list[str], dict[str, list[bool]]]:
    """Return what the model writes for each test row, by the evaluation's own decoding, and which items of
    each general set it gets right."""
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
    items = general_items(DATA, chosen.general)
    contestant = ContestantJob(
        role=Role.CANDIDATE, model_key=name, base=BaseModelRef(name=base.name, revision=base.revision),
        quantization="nf4" if name == "qlora" else None, whole_model=name == "full",
        directory=folder / "model" if name in RATES else None, rows=folder / "rows.jsonl",
    )  # fmt: skip
    job = Job(
        contestants=(contestant,), examples=tuple(examples), items=items, max_output_tokens=MAX_OUTPUT_TOKENS,
        cache_dir=chosen.cache_dir, threads=chosen.threads,
    )  # fmt: skip
    measure_contestants(job, note)
    found = read_measurement(contestant.rows.read_text("utf-8"))
    assert found is not None
    keys = [example_key(one, max_output_tokens=MAX_OUTPUT_TOKENS) for one in examples]
    right: dict[str, list[bool]] = defaultdict(list)
    for item in items:
        right[item.kind].append(bool(getattr(found.rows[item.key], "correct", False)))
    return [str(getattr(found.rows[key], "output")) for key in keys], dict(right)  # noqa: B009


def score(answers: Sequence[str], intents: Sequence[str]) -> dict[str, Any]:
    """Share of right answers with its 95 % interval (Wilson's), and of answers that are JSON with a known
    intent."""
    from scipy.stats import binomtest
    from tunewheel_contracts.formats.spec import TaskSpec
    from tunewheel_outputs.labels import label_of, same_label

    right = sum(same_label(a, answer(i), "intent") for a, i in zip(answers, intents, strict=True))
    interval = binomtest(right, len(intents)).proportion_ci(method="wilson")
    known, task = set(intents), TaskSpec(system_prompt="Answer.", label_field="intent")
    valid = sum(label_of(a, task) in known for a in answers)
    return {
        "accuracy": right / len(intents),
        "accuracy_95": [round(interval.low, 3), round(interval.high, 3)],
        "known_intent": valid / len(intents),
        "right": right,
        "of": len(intents),
    }


if __name__ == "__main__":
    main()
