"""Precision and recall of personal data per entity, on presidio-research's labelled sentences.

The sentences are filled-in templates, so the figures are given for each of two halves that share no template
too: what holds on one half alone is luck. A finding counts where it overlaps a labelled span of its entity.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any

from corpus import DATA
from report import write_report
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_redaction.recognizers import recognizers_of
from tunewheel_redaction.redaction import find_entities

ENTITIES = PiiPolicy().wanted
FILE = DATA / "pii_presidio/data/synth_dataset_v2.json"
UNSEEN = ("PERSON", "STREET_ADDRESS", "GPE", "ORGANIZATION", "DATE_TIME")
"""Labelled, and not looked for: they need a language model."""


def main() -> None:
    if not FILE.is_file():
        sys.exit(f"{FILE} is missing: the benchmark needs the labelled sentences")
    texts = json.loads(FILE.read_text(encoding="utf-8"))
    templates = sorted({text["template_id"] for text in texts})
    halves = {"first_half": set(templates[::2]), "second_half": set(templates[1::2])}
    for entity in ENTITIES:
        recognizers_of(entity)
    started = time.process_time()
    contenders: dict[str, Any] = {
        name: scores([text for text in texts if text["template_id"] in chosen])
        for name, chosen in halves.items()
    }
    seconds = time.process_time() - started
    contenders["all"] = scores(texts)
    labelled = Counter(span["entity_type"] for text in texts for span in text["spans"])
    whole = contenders["all"]["entities"]
    write_report(
        "pii",
        packages=("presidio-analyzer",),
        contenders=contenders,
        ratios={
            f"{figure}_{entity}": whole[entity][figure]
            for entity in ENTITIES
            for figure in ("precision", "recall")
            if whole[entity][figure] is not None
        },
        templates=len(templates),
        texts_per_cpu_second=round(len(texts) / seconds),
        not_looked_for={name: labelled[name] for name in UNSEEN},
    )


def scores(texts: list[dict[str, Any]]) -> dict[str, Any]:
    gold, hits, found, false = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    all_found = find_entities([text["full_text"] for text in texts], list(ENTITIES))
    for text, found_here in zip(texts, all_found, strict=True):
        spans = [(s["entity_type"], s["start_position"], s["end_position"]) for s in text["spans"]]
        findings = [(f.entity, f.start, f.end) for f in found_here]
        for entity, start, end in spans:
            gold[entity] += 1
            hits[entity] += any(e == entity and s < end and start < x for e, s, x in findings)
        for entity, start, end in findings:
            found[entity] += 1
            false[entity] += not any(e == entity and s < end and start < x for e, s, x in spans)
    entities = {
        entity: {
            "precision": round(1 - false[entity] / found[entity], 3) if found[entity] else None,
            "recall": round(hits[entity] / gold[entity], 3) if gold[entity] else None,
            "labelled": gold[entity],
        }
        for entity in ENTITIES
    }
    return {"texts": len(texts), "entities": entities}


if __name__ == "__main__":
    main()
