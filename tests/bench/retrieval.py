"""What the index finds, how fast, and what a changed document costs, beside each of its halves and MiniLM.

Two sets (see ``passages``): headings of public SOPs, and customers' tickets. Every contender searches the
same passages for the same questions, in this process and one question at a time. ``bm25s`` ranks by words
alone with its own tokenizer, ``static`` by the table's vectors alone, ``minilm`` by the model whose table
that is, among fewer sections: it reads a few dozen of them a second.

bm25s is installed into var/bench/contenders on first use; it is no dependency.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus import dolly_questions, require_data, self_instruct_instructions
from passages import Questions, Text, figures, headings, tickets
from report import BENCH_DIR, write_report
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_id, content_sha256
from tunewheel_embedding.static import StaticEmbedder, packaged_model
from tunewheel_retrieval.building import Document, build
from tunewheel_retrieval.index import Index
from tunewheel_retrieval.search import look_up
from tunewheel_retrieval.sections import Section

CONTENDERS = BENCH_DIR / "contenders"
QUESTIONS = 500
SECTIONS = 1_000
UNRELATED, LONGEST_UNRELATED = 500, 300
DEPTH = 30
"""Passages asked for: ten texts at least, where one has several."""
BATCH = 32
Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
Search = Callable[[str], list[int]]
Others = dict[str, Callable[[Sequence[str]], Search]]


def main() -> None:
    require_data()
    install_bm25s()
    halves: Others = {"bm25s": by_bm25s, "static": by_static}
    contenders = {
        "headings": compared(headings(QUESTIONS), halves),
        "tickets": compared(tickets(QUESTIONS), halves),
    }
    few = headings(QUESTIONS, sections=SECTIONS)
    contenders["headings_few"] = compared(few, halves | {"minilm": by_minilm})
    write_report(
        "retrieval",
        packages=("numpy", "tokenizers"),
        contenders=contenders,
        ratios={
            f"recall_at_5_{kind}_to_{name}": found["tunewheel"]["recall_at_5"] / found[name]["recall_at_5"]
            for kind, found in contenders.items()
            for name in found
            if name != "tunewheel"
        },
        load_average=os.getloadavg(),
    )


def install_bm25s() -> None:
    if not (CONTENDERS / "bm25s").is_dir():
        uv = shutil.which("uv") or str(Path(__file__).resolve().parents[2] / ".uv" / "bin" / "uv")
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(CONTENDERS), "bm25s"]
        subprocess.run([*command, "--python", sys.executable], check=True)
    sys.path.append(str(CONTENDERS))  # behind our own packages


def compared(questions: Questions, others: Others) -> dict[str, Any]:
    """Return every contender's quality, passages a second and milliseconds a question, and what one changed
    document costs ours."""
    embedder = StaticEmbedder()
    embedder.units(["the table is loaded"])
    documents = [document(text) for text in questions.texts]
    started = time.perf_counter()
    ours = built(documents, embedder)
    seconds = time.perf_counter() - started
    floored = built(documents, embedder, spec=RetrievalSpec(floor="calibrated"))

    def search(question: str) -> list[int]:
        hits = ours.search(question, embedder.units([question])[0], DEPTH)
        return [at[hit.passage.passage_id] for hit in hits]

    names = [row.document_id for row in ours.rows]
    at = {row.passage_id: number for number, row in enumerate(ours.rows)}
    found = {"tunewheel": judged(search, names, questions, seconds)}
    found["tunewheel"]["floor"] = {
        name: share_without_passage(floored, embedder, asked)
        for name, asked in {"answerable": [asked for asked, _ in questions.asked], **unrelated()}.items()
    }
    found["tunewheel"]["change_seconds"] = change_seconds(ours, documents, embedder)
    texts = [row.searched for row in ours.rows]
    for name, prepare in others.items():
        started = time.perf_counter()
        search = prepare(texts)
        found[name] = judged(search, names, questions, time.perf_counter() - started)
    return found


def document(text: Text) -> Document:
    section = Section(text.name, text.name, text.title, text.sections[0].path, text.sections)
    return Document(text.name, content_id("rec", [text.name]), text.title, [section])


def unrelated() -> dict[str, list[str]]:
    """Return prompts that neither SOPs nor a bank's tickets answer."""
    return {
        "dolly": [asked for asked in dolly_questions() if len(asked) < LONGEST_UNRELATED][:UNRELATED],
        "self_instruct": self_instruct_instructions(),
    }


def share_without_passage(index: Index, embedder: StaticEmbedder, questions: Sequence[str]) -> float:
    spec = RetrievalSpec(floor="calibrated")
    found = [look_up(index, spec, [(asked, embedder.units([asked])[0])])[0] for asked in questions]
    return round(sum(not hits for hits in found) / len(found), 3)


def built(
    documents: Sequence[Document],
    embedder: StaticEmbedder,
    previous: Index | None = None,
    spec: RetrievalSpec = RetrievalSpec(),
) -> Index:
    """Build a version and open it, as a gateway does that fetched its files."""
    made = build(documents, embedder, spec, previous, project="bench", config_sha256="0" * 64)
    files = made.by_name()
    refs = {
        name: ArtifactRef(path=name, sha256=content_sha256(data), size_bytes=len(data))
        for name, data in files.items()
    }
    return Index.open(made.manifest(refs), files)


def change_seconds(before: Index, documents: Sequence[Document], embedder: StaticEmbedder) -> float:
    """Return the seconds from a changed document to the version that finds it, open; the median of three."""
    changed = len(documents) // 2
    took: list[float] = []
    for number in range(3):
        said = f"The depot keeps lost zeppelins for {number + 7} days."
        new = Text(documents[changed].document_id, "Zeppelins", (DocumentSection(text=said),))
        others = [replace(one, sections=None) for one in documents]
        others[changed] = replace(document(new), record_id=f"rec-changed-{number}")
        started = time.perf_counter()
        after = built(others, embedder, before)
        (hit,) = after.search("lost zeppelins", embedder.units(["lost zeppelins"])[0], 1)
        took.append(time.perf_counter() - started)
        assert hit.passage.text == said
    return round(sorted(took)[1], 2)


def judged(search: Search, names: Sequence[str], questions: Questions, build: float) -> dict[str, Any]:
    search(questions.asked[0][0])
    found: list[list[str]] = []
    took: list[float] = []
    for question, _ in questions.asked:
        started = time.perf_counter()
        rows = search(question)
        took.append(time.perf_counter() - started)
        found.append([names[row] for row in rows])
    p50, p95 = np.percentile(took, [50, 95]) * 1e3
    return {
        **figures(found, questions),
        "milliseconds_p50": round(float(p50), 2),
        "milliseconds_p95": round(float(p95), 2),
        "passages_per_second": round(len(names) / build),
        "passages": len(names),
    }


def by_bm25s(texts: Sequence[str]) -> Search:
    import bm25s  # type: ignore[import-not-found]

    model = bm25s.BM25()
    model.index(bm25s.tokenize(list(texts), show_progress=False), show_progress=False)

    def search(question: str) -> list[int]:
        words = bm25s.tokenize([question], show_progress=False)
        rows, scores = model.retrieve(words, k=DEPTH, show_progress=False)
        return [int(row) for row, score in zip(rows[0], scores[0], strict=True) if score > 0]

    return search


def by_vectors(embed: Embed, texts: Sequence[str]) -> Search:
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # equal lengths waste no padding
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    rows = [embed([texts[row] for row in batch]) for batch in batches]
    vectors = np.empty((len(texts), rows[0].shape[1]), np.float32)
    vectors[order] = np.concatenate(rows)

    def search(question: str) -> list[int]:
        return [int(row) for row in np.argsort(-(vectors @ embed([question])[0]), kind="stable")[:DEPTH]]

    return search


def by_static(texts: Sequence[str]) -> Search:
    embedder = StaticEmbedder()
    return by_vectors(lambda said: embedder.units(said).astype(np.float32), texts)


def by_minilm(texts: Sequence[str]) -> Search:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(packaged_model())
    model: Any = AutoModel.from_pretrained(packaged_model()).eval()

    def embed(said: Sequence[str]) -> Vectors:
        batch = tokenizer(list(said), padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).numpy()

    return by_vectors(embed, texts)


if __name__ == "__main__":
    main()
