"""Near-duplicates found and missed, beside datasketch and datatrove, on one corpus with ground truth.

Corpus: the sections of PagerDuty's incident documents in two versions (same path and heading: the same
section, often edited since), and sections of other runbooks with so many of their words changed. A pair is a
duplicate where its true similarity, the Jaccard of word bigrams, is at least 0.8: all pairs are compared to
know. Then bug reports that people marked as duplicates (gitbugs SeaMonkey): those are said in other words,
and reported apart. Then distinct answers to nearly equal questions, which must all stay: each dolly question
is asked for two models, and one word of the second answer is exchanged or negated. And pairs of sentences
with people's scores of likeness (STS 2016), as two answers to one question. And names and addresses of
places, of which it is known which are the same (dedupe's example), as questions with one answer.

The contenders are installed into var/bench/contenders on first use; they are no dependency.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
from corpus import DATA, require_data
from report import BENCH_DIR, write_report
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_curate.cleaning.normalization import comparison_key, normalize_text
from tunewheel_curate.duplicates.answers import answered_alike
from tunewheel_curate.duplicates.questions import drop_near_duplicates, find_near_pairs
from tunewheel_curate.duplicates.semantics import semantic_pairs
from tunewheel_curate.similarity.near_index import empty_index
from tunewheel_curate.similarity.pairs import SimilarPair, near_pairs
from tunewheel_curate.stage import RECORD_SCHEMA, Stage
from tunewheel_testing.shingles import jaccard, shingles

THRESHOLD = 0.8
PERMUTATIONS = 128
CONTENDERS = BENCH_DIR / "contenders"
EDITED_SHARES = (0.02, 0.05, 0.1, 0.2)
LEAST_WORDS = 14
"""Of a question and of an answer, so that two of a template are near-duplicates."""
ALIKE = 4.0
"""From this score on people call two sentences mostly equivalent (5: completely)."""
TASK = TaskSpec(system_prompt="Answer.")
Pairs = set[tuple[int, int]]


def main() -> None:
    require_data()
    install_contenders()
    keys = corpus()
    sets = [shingles(key) for key in keys]
    truth = {(i, j) for i, j in combinations(range(len(keys)), 2) if alike(sets[i], sets[j])}
    finders: dict[str, Callable[[list[str]], Pairs]] = {
        "tunewheel": by_tunewheel, "datasketch": by_datasketch, "datatrove": by_datatrove,
    }  # fmt: skip
    contenders = {name: judged(find, keys, truth) for name, find in finders.items()}
    ours = contenders["tunewheel"]
    ratios = {
        f"docs_per_cpu_second_to_{name}": ours["docs_per_cpu_second"]
        / contenders[name]["docs_per_cpu_second"]
        for name in ("datasketch", "datatrove")
    }
    write_report(
        "dedupe",
        packages=("rensa", "polars", "numpy"),
        contenders=contenders,
        ratios=ratios | {"precision": ours["precision"], "recall": ours["recall"]},
        documents=len(keys),
        true_pairs=len(truth),
        semantic=semantic_figures(),
        answers=answer_figures(),
        places=place_figures(),
        load_average=os.getloadavg(),
    )


def install_contenders() -> None:
    if not (CONTENDERS / "datasketch").is_dir() or not (CONTENDERS / "datatrove").is_dir():
        command = ["uv", "pip", "install", "--quiet", "--target", str(CONTENDERS), "datasketch", "datatrove"]
        subprocess.run([*command, "--python", sys.executable], check=True)
    sys.path.append(str(CONTENDERS))  # behind our own packages


def corpus() -> list[str]:
    """Return the distinct comparison keys of all sections and their edited copies."""
    rng = random.Random(11)
    texts: list[str] = []
    for folder in ("sop_pagerduty/head", "sop_pagerduty/v2019-01-14"):
        texts += sections(DATA / folder)
    others = [
        s for name in ("sop_openshift_runbooks", "sop_prometheus_runbooks") for s in sections(DATA / name)
    ]
    for text in others:
        texts.append(text)
        words = text.split(" ")
        for place in rng.sample(range(len(words)), max(1, int(len(words) * rng.choice(EDITED_SHARES)))):
            words[place] = rng.choice(("perhaps", "certainly", "elsewhere", "tomorrow"))
        texts.append(" ".join(words))
    return sorted({comparison_key(normalize_text(text)) for text in texts})


def sections(folder: Path) -> list[str]:
    parts = [
        part.strip()
        for file in sorted(folder.rglob("*.md"))
        for part in re.split(r"\n(?=#)", file.read_text(encoding="utf-8", errors="replace"))
    ]
    return [part for part in parts if len(part.split()) >= 20]


def alike(one: frozenset[str], other: frozenset[str]) -> bool:
    small, large = sorted((len(one), len(other)))
    return small >= THRESHOLD * large and jaccard(one, other) >= THRESHOLD


def judged(find: Callable[[list[str]], Pairs], keys: list[str], truth: Pairs) -> dict[str, Any]:
    find(keys[:50])  # imports, and whatever else is done once
    cpu, wall = time.process_time(), time.perf_counter()
    found = find(keys)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "precision": round(len(found & truth) / len(found), 4) if found else 0.0,
        "recall": round(len(found & truth) / len(truth), 4),
        "cpu_seconds": round(cpu, 3),
        "seconds": round(wall, 3),
        "docs_per_cpu_second": round(len(keys) / cpu),
    }


def by_tunewheel(keys: list[str]) -> Pairs:
    pairs, _ = near_pairs(pl.Series(keys), minimum=THRESHOLD, earlier=empty_index())
    return {(pair.first, pair.second) for pair in pairs}


def by_datasketch(keys: list[str]) -> Pairs:
    """Its MinHashLSH as its manual has it: candidates are the answer."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    sketches = []
    for key in keys:
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch([shingle.encode() for shingle in shingles(key)])
        sketches.append(sketch)
    for number, sketch in enumerate(sketches):
        index.insert(number, sketch)
    return {
        (number, other)
        for number, sketch in enumerate(sketches)
        for other in index.query(sketch)
        if other > number
    }


def by_datatrove(keys: list[str]) -> Pairs:
    """Its signatures (its defaults but for the n-grams: 14 buckets of 8) and bucket matching, in memory: its
    own pipeline writes each step to files and runs a process per bucket."""
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from datatrove.utils.hashing import HashConfig

    # Its other hash, xxhash, refuses text since version 4.
    config = MinhashConfig(n_grams=2, hash_config=HashConfig(hash_fc="sha1"))
    step = MinhashDedupSignature(output_folder="/tmp", config=config)
    buckets: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for number, key in enumerate(keys):
        signature = step.get_signature(step.get_shingles(key))
        for band, values in enumerate(signature):
            buckets.setdefault((band, tuple(values)), []).append(number)
    return {pair for members in buckets.values() for pair in combinations(members, 2)}


def semantic_figures() -> dict[str, Any]:
    """Return precision and recall of reported duplicates among bug reports, by words and by meaning."""
    with (DATA / "gitbugs_seamonkey/SeaMonkey_bugs.csv").open(encoding="utf-8") as file:
        bugs = {
            row["Issue id"]: f"{row['Summary']} {row['Description'][:600]}" for row in csv.DictReader(file)
        }
    place = {issue: number for number, issue in enumerate(bugs)}
    with (DATA / "gitbugs_seamonkey/SeaMonkey_bugs-combined.csv").open(encoding="utf-8") as file:
        marked = {
            (min(a, b), max(a, b))
            for row in csv.DictReader(file)
            if (a := place.get(row["Issue id"])) is not None
            and (b := place.get(row["Duplicate id"])) is not None
        }
    keys = [comparison_key(normalize_text(text)) for text in bugs.values()]
    by_words, _ = near_pairs(pl.Series(keys), minimum=0.5, earlier=empty_index())
    by_meaning = semantic_pairs(keys, threshold=0.6)
    figures: dict[str, Any] = {"reports": len(keys), "marked_pairs": len(marked)}
    for name, pairs, levels in (
        ("words", by_words, (0.5, 0.8)),
        ("meaning", by_meaning, (0.6, 0.7, 0.8, 0.9)),
    ):
        for level in levels:
            found = {(pair.first, pair.second) for pair in pairs.at_least(level)}
            hits = len(found & marked)
            figures[f"{name}_{level}"] = {
                "found": len(found), "precision": round(hits / max(len(found), 1), 3),
                "recall": round(hits / len(marked), 3),
            }  # fmt: skip
    return figures


def settled(records: pl.DataFrame) -> Stage:
    """Find and drop near-duplicates, as a build does."""
    found = find_near_pairs(records, minimum=THRESHOLD, earlier=empty_index())
    assert found.pairs is not None
    return drop_near_duplicates(records, found.pairs, TASK, threshold=THRESHOLD)


def answer_figures() -> dict[str, Any]:
    """Return how many of the twins' distinct answers are kept, and how many pairs of sentences count as
    equal answers."""
    path = DATA / "dolly_hh_1k/dolly_hhrlhf_train_small.jsonl"
    rows = twins([json.loads(line) for line in path.read_text("utf-8").splitlines()])
    kept = settled(compared(rows)).kept["output"].n_unique()
    scored = [
        (float(score), asked, other)
        for file in sorted((DATA / "sts2016_pairs").glob("*.tsv"))
        for score, asked, other in csv.reader(file.open(encoding="utf-8"), delimiter="\t", quoting=3)
        if score.strip()
    ]
    question = "How do I set up the pump at the north side of the building?"
    frame = compared([(question, answer) for _, one, other in scored for answer in (one, other)])
    sent = [SimilarPair(2 * place, 2 * place + 1, 1.0) for place in range(len(scored))]
    equal = {pair.first // 2 for pair in answered_alike(frame, sent, TASK)}
    alike = {place for place, (score, _, _) in enumerate(scored) if score >= ALIKE}
    return {
        "twins": len(rows), "twins_kept": kept / len({answer for _, answer in rows}),
        "scored_pairs": len(scored), "equal": len(equal), "of_alike": len(equal & alike) / len(alike),
        "precision": len(equal & alike) / len(equal) if equal else None,
    }  # fmt: skip


def place_figures() -> dict[str, Any]:
    """Return precision and recall of the dropped repetitions among the records of places."""
    path = DATA / "dedupe_records/csv_example_input_with_true_ids.csv"
    place_of: dict[str, str] = {}
    for row in csv.DictReader(path.open(encoding="utf-8")):
        said = " ".join(row[name] for name in ("Site name", "Address", "Phone", "Program Name") if row[name])
        place_of.setdefault(comparison_key(said), row["True Id"])
    names, places = list(place_of), list(place_of.values())
    dropped = settled(compared([(name, "Call them.") for name in names])).dropped
    dropped = dropped.select("record_id", "duplicate_of").rows()
    right = sum(places[int(one[4:])] == places[int(other[4:])] for one, other in dropped)
    repeated = len(places) - len(set(places))
    return {"dropped": len(dropped), "precision": right / len(dropped), "recall": right / repeated}


def twins(conversations: list[dict[str, str]]) -> list[tuple[str, str]]:
    """Return questions and answers: each question for two models, with answers that differ in one word."""
    rng, rows = random.Random(11), list[tuple[str, str]]()
    for one in conversations:
        question = one["prompt"].partition("### Instruction:\n")[2].partition("\n\n### Response:")[0].strip()
        words = one["response"].split()
        if len(question.split()) < LEAST_WORDS or len(words) < LEAST_WORDS:
            continue
        place = rng.randrange(len(words))
        changed = [*words[:place], *rng.choice((("not", words[place]), ("blue",))), *words[place + 1 :]]
        rows += [
            (f"{question} I ask for Model {model}.", " ".join(answer))
            for model, answer in (("Alpha", words), ("Beta", changed))
        ]
    return rows


def compared(rows: list[tuple[str, str]]) -> pl.DataFrame:
    """Return records as the near-duplicate stage gets them."""
    asked = [comparison_key(normalize_text(question)) for question, _ in rows]
    told = {"record_id": [f"rec-{number:06}" for number, _ in enumerate(rows)], "input": asked}
    told |= {"output": [answer for _, answer in rows], "trust": ["expert"] * len(rows)}
    frame = pl.DataFrame(told, schema_overrides=RECORD_SCHEMA)
    missing = [
        pl.lit(None, dtype=RECORD_SCHEMA[name]).alias(name) for name in RECORD_SCHEMA if name not in told
    ]
    return frame.with_columns(*missing, pl.Series("key", asked), pl.lit(None, dtype=pl.String).alias("label"))


if __name__ == "__main__":
    main()
