"""What the index serves of documents into which somebody wrote an injection, and how many honest texts it
holds back.

Each attack of three public collections is one more paragraph of a section of a public SOP. The section's
heading is asked, and four passages are served, as a gateway does. ``bastioncorpus`` was at hand when the
patterns were written; nobody looked into the other two, ``unseen``, before. Counted are the served passages
with an attack, where such passages are not held back (``before``) and where they are (``after``).

The collections are installed into var/bench/contenders on first use; they are no dependencies.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from corpus import DATA
from passages import Questions, Text, headings
from report import BENCH_DIR
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_id, content_sha256
from tunewheel_embedding.static import StaticEmbedder
from tunewheel_retrieval.building import Document, build
from tunewheel_retrieval.index import Index
from tunewheel_retrieval.injections import injected
from tunewheel_retrieval.sections import Section

CONTENDERS = BENCH_DIR / "contenders"
COLLECTIONS = ("bastioncorpus==0.6.0", "nullsec-promptinject==0.1.0", "jailbreak-corpus-mini-py==0.1.0")
SERVED = 4
HONEST = 1_000
SHOWN = 40
"""A passage with the first or the last so many characters of an attack holds it."""


def poisoned_documents() -> dict[str, dict[str, Any]]:
    """Return the figures by collection, and those of honest texts."""
    _install()
    sops = headings(HONEST, sections=HONEST)
    embedder = StaticEmbedder()
    found = {name: _served(sops, attacks, embedder) for name, attacks in _collections().items()}
    honest = _built([_document(text) for text in headings(1).texts], embedder, searches=True)
    few = _built([_document(text) for text in sops.texts], embedder, searches=True)
    held = pl.DataFrame({"text": list(_public_texts())}).select(injected(pl.col("text")).sum()).item()
    found["honest"] = {
        "sop_sections": len(sops.texts),
        "their_passages": few.manifest.counts.passages + few.manifest.counts.waiting,
        "held_back": few.manifest.counts.waiting,
        "all_sop_passages": honest.manifest.counts.passages + honest.manifest.counts.waiting,
        "held_back_of_all": honest.manifest.counts.waiting,
        "public_texts": sum(1 for _ in _public_texts()),
        "held_back_of_public_texts": held,
    }
    return found


def _install() -> None:
    if not (CONTENDERS / "bastioncorpus").is_dir():
        uv = shutil.which("uv") or str(Path(__file__).resolve().parents[2] / ".uv" / "bin" / "uv")
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(CONTENDERS), *COLLECTIONS]
        subprocess.run([*command, "--python", sys.executable], check=True)
    sys.path.append(str(CONTENDERS))  # behind our own packages


def _collections() -> dict[str, list[str]]:
    from nullsec_promptinject.payloads import PAYLOADS  # type: ignore[import-not-found]

    lines = (CONTENDERS / "bastioncorpus/corpus/injections.jsonl").read_text("utf-8").splitlines()
    bastion = [
        row["text"] for row in map(json.loads, filter(str.strip, lines)) if row["label"] == "malicious"
    ]
    mini = json.loads((CONTENDERS / "jailbreak_corpus_mini/corpus.json").read_text("utf-8"))
    return {
        "bastioncorpus": bastion,
        "unseen": [*(one.text for one in PAYLOADS), *(one["prompt"] for one in mini)],
    }


def _served(sops: Questions, attacks: Sequence[str], embedder: StaticEmbedder) -> dict[str, Any]:
    """Return how many of the served passages hold one of ``attacks``, before and after."""
    by_name = {text.name: text for text in sops.texts}
    asked = [(question, *right) for question, right in sops.asked[: len(attacks)]]
    poisoned = {name: attack for (_, name), attack in zip(asked, attacks, strict=True)}
    documents = [_document(text, poisoned.get(name, "")) for name, text in by_name.items()]
    told: dict[str, Any] = {"attacks": len(attacks)}
    for when, searches in (("before", False), ("after", True)):
        index = _built(documents, embedder, searches=searches)
        hits = [
            hit.passage
            for question, _ in asked
            for hit in index.search(question, embedder.units([question])[0], SERVED)
        ]
        bad = sum(_holds(one.text, poisoned.get(one.document_id, "")) for one in hits)
        kept = {row.document_id for row in index.rows if _holds(row.text, poisoned.get(row.document_id, ""))}
        told[when] = {
            "served": len(hits), "injected": bad, "share": round(bad / len(hits), 4),
            "attacks_in_the_index": len(kept),
        }  # fmt: skip
    return told


def _holds(text: str, attack: str) -> bool:
    said = " ".join(attack.split())
    flat = " ".join(text.split())
    return bool(said) and (said[:SHOWN] in flat or said[-SHOWN:] in flat)


def _document(text: Text, attack: str = "") -> Document:
    added = (DocumentSection(text=attack, path=text.sections[-1].path),) if attack else ()
    section = Section(text.name, text.name, text.title, text.sections[0].path, (*text.sections, *added))
    return Document(text.name, content_id("rec", [text.name, attack]), text.title, [section])


def _built(documents: Sequence[Document], embedder: StaticEmbedder, *, searches: bool) -> Index:
    files = build(
        [replace(one, origin="bench") for one in documents], embedder, RetrievalSpec(),
        project="bench", config_sha256="0" * 64, searches=searches,
    )  # fmt: skip
    by_name = files.by_name()
    refs = {
        name: ArtifactRef(path=name, sha256=content_sha256(data), size_bytes=len(data))
        for name, data in by_name.items()
    }
    return Index.open(files.manifest(refs), by_name)


def _public_texts() -> Iterator[str]:
    """Yield tickets, questions and answers of the public sets."""
    for path in sorted(DATA.glob("*/*.csv")):
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for row in csv.DictReader(file):
                yield from (value for value in row.values() if isinstance(value, str) and len(value) > 20)
    for path in sorted(DATA.glob("dolly_hh_1k/*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            yield from (value for value in json.loads(line).values() if isinstance(value, str))
