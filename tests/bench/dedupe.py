"""Near-duplicates found and missed, beside datasketch and datatrove, on one corpus with ground truth.

Corpus: the sections of PagerDuty's incident documents in two versions (same path and heading: the same
section, often edited since), and sections of other runbooks with so many of their words changed. A pair is a
duplicate where its true similarity, the Jaccard of word bigrams, is at least 0.8: all pairs are compared to
know. Then bug reports that people marked as duplicates (gitbugs SeaMonkey): those are said in other words,
and reported apart.

The contenders are installed into var/bench/contenders on first use; they are no dependency.
"""

from __future__ import annotations

import csv
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
from tunewheel_curate.cleaning.normalization import comparison_key, normalize_text
from tunewheel_curate.duplicates.semantics import semantic_pairs
from tunewheel_curate.similarity.near_index import empty_index
from tunewheel_curate.similarity.pairs import near_pairs
from tunewheel_curate.similarity.shingling import jaccard, shingles

THRESHOLD = 0.8
PERMUTATIONS = 128
CONTENDERS = BENCH_DIR / "contenders"
EDITED_SHARES = (0.02, 0.05, 0.1, 0.2)
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
    pairs, _ = near_pairs(pl.Series(keys), minimum=THRESHOLD, known=empty_index())
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
    by_words, _ = near_pairs(pl.Series(keys), minimum=0.5, known=empty_index())
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


if __name__ == "__main__":
    main()
