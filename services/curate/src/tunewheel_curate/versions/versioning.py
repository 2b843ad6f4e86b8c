"""Writes a build as an immutable version: Parquet files, lineage, card and manifest, with ids from
content."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest, ExpectationResult, TokenizerUse
from tunewheel_contracts.formats.label_prompts import LABEL_REQUEST
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import canonical_json, content_id, content_sha256
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_outputs.languages import language_of

from tunewheel_curate.evaluation.leakage import ANSWER_IN_TRAINING
from tunewheel_curate.examples.templates import VERIFIED
from tunewheel_curate.holdout.splitting import Split
from tunewheel_curate.pipeline import Build
from tunewheel_curate.versions.card import data_card

if TYPE_CHECKING:
    from tunewheel_curate.pipeline import Build


VERSIONED = (
    "tunewheel-curate", "polars", "ftfy", "rensa", "presidio-analyzer", "great-expectations", "scikit-learn",
    "cleanlab", "py3langid", "transformers",
)  # fmt: skip
MANIFEST = "manifest.json"
DATA_DOCS = "data_docs"
DATA_DOCS_INDEX = f"{DATA_DOCS}/index.html"
HOLDOUT_MEMORY = "holdout_memory.parquet"
_ROWS_AT_ONCE = 2_048

version = cache(metadata.version)
"""Reading the metadata of ``VERSIONED`` takes longer than writing a small version."""


def rows_sha256(
    split: Split, preferences: pl.DataFrame | None = None, negatives: pl.DataFrame | None = None
) -> str:
    """Return the SHA-256 of the canonical rows of both sides, the preference pairs and the negatives."""
    rows = {"train": split.train.sort("example_id"), "holdout": split.holdout.sort("example_id")}
    if preferences is not None and not preferences.is_empty():
        rows["preferences"] = preferences
    if negatives is not None and not negatives.is_empty():
        rows["negatives"] = negatives
    digest = hashlib.sha256()
    for part in _canonical(rows):
        digest.update(part)
    return digest.hexdigest()


def _canonical(frames: Mapping[str, pl.DataFrame]) -> Iterator[bytes]:
    """Yield ``canonical_json`` of the rows of ``frames`` in pieces: in one piece it takes too much memory."""
    for number, name in enumerate(sorted(frames)):
        yield b"," if number else b"{"
        yield canonical_json(name) + b":["
        for place, rows in enumerate(frames[name].iter_slices(_ROWS_AT_ONCE)):
            yield b"," if place else b""
            yield canonical_json(rows.to_dicts())[1:-1]
        yield b"]"
    yield b"}"


def dataset_id_of(
    spec: ProjectSpec,
    rows: str,
    *,
    index_id: str | None = None,
    previous: str | None = None,
    published: Collection[str] = (),
) -> str:
    """Return ``ds-`` and 20 hex digits that follow from the spec, the rows' hash, and the index of the
    passages.

    The rows of an earlier version can come back, for example when a withdrawn document is published again.
    They make a new version, whose id follows from ``previous`` too. Under an id in ``published`` every
    service would take it for work that is done, and it would lack the memory of the versions since.
    """
    content: dict[str, str | None] = {"spec_sha256": spec.sha256, "rows_sha256": rows}
    if index_id is not None:
        content["index_id"] = index_id
    plain = content_id("ds", content)
    return content_id("ds", content | {"previous": previous}) if plain in published else plain


def name_of(
    build: Build, spec: ProjectSpec, rows: str, *, previous: str | None, published: Collection[str]
) -> str:
    """Return the ``dataset_id_of`` a build whose rows have the hash ``rows``."""
    index_id = build.shown.index_id if build.shown else None
    return dataset_id_of(spec, rows, index_id=index_id, previous=previous, published=published)


def write_version(
    build: Build,
    spec: ProjectSpec,
    folder: Path,
    *,
    expectations: tuple[ExpectationResult, ...] = (),
    previous: str | None = None,
    published: Collection[str] = (),
) -> DatasetManifest:
    """Write the version's files below ``folder``, in the layout of ``datasets/<dataset_id>/``.

    The same build writes the same bytes. If there are ``expectations``, the manifest and the card refer to
    their Data Docs. ``previous`` is the version before this one; ``published`` are all earlier versions of
    the project.
    """
    rows, shown = rows_sha256(build.split, build.preferences, build.negatives), build.shown
    dataset_id = name_of(build, spec, rows, previous=previous, published=published)
    prefix = f"datasets/{dataset_id}"
    docs = DATA_DOCS_INDEX if expectations else None
    card = data_card(dataset_id, spec, build, data_docs=docs, previous=previous, expectations=expectations)
    manifest = DatasetManifest(
        dataset_id=dataset_id,
        project=spec.project,
        spec=spec,
        spec_sha256=spec.sha256,
        criteria_sha256=spec.criteria_sha256,
        rows_sha256=rows,
        train=_write(
            folder, prefix, "train.parquet", _parquet(with_origin(build.split.train, build.lineage))
        ),
        holdout=_write(
            folder,
            prefix,
            "holdout.parquet",
            _parquet(with_findings(with_origin(build.split.holdout, build.lineage, languages=True), build)),
        ),
        card=_write(folder, prefix, "card.md", card.encode()),
        lineage=_write(folder, prefix, "lineage.parquet", _parquet(build.lineage)),
        quality=build.quality.report(_review(build, folder, prefix)),
        preferences=_write(folder, prefix, "preferences.parquet", _parquet(build.preferences))
        if build.counts.preferences and build.preferences is not None
        else None,
        negatives=_write(folder, prefix, "negatives.parquet", _parquet(build.negatives))
        if build.counts.negatives and build.negatives is not None
        else None,
        holdout_memory=_write(folder, prefix, HOLDOUT_MEMORY, _parquet(build.memory.to_frame())),
        replay=build.replayed.use if build.replayed is not None else None,
        data_docs=f"{prefix}/{DATA_DOCS}" if expectations else None,
        tokenizer=_tokenizer(build),
        teacher=build.pinned.teacher,
        counts=build.counts,
        funnel=build.funnel,
        versions={name: version(name) for name in VERSIONED},
        preliminary=build.preliminary,
        previous=previous,
        index_id=shown.index_id if shown else None,
        index=shown.index if shown else None,
        passages=shown.use if shown else None,
        expectations=expectations,
    )
    _write(folder, prefix, MANIFEST, manifest.model_dump_json(indent=2).encode())
    return manifest


def _review(build: Build, folder: Path, prefix: str) -> ArtifactRef | None:
    if build.quality.review.is_empty():
        return None
    return _write(folder, prefix, "review.parquet", _parquet(build.quality.review))


def _tokenizer(build: Build) -> TokenizerUse | None:
    use = build.pinned.tokens.use
    if not use.base_model:
        return None
    verified = sum(figures.get(VERIFIED, 0) for figures in build.figures.values())
    return use.model_copy(update={"verified": verified})


def manifest_ref(manifest: DatasetManifest, data: bytes) -> ArtifactRef:
    """Return the reference to ``manifest``, whose bytes are ``data``."""
    path = f"datasets/{manifest.dataset_id}/{MANIFEST}"
    return ArtifactRef(path=path, sha256=content_sha256(data), size_bytes=len(data))


def _write(folder: Path, prefix: str, name: str, data: bytes) -> ArtifactRef:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return ArtifactRef(path=f"{prefix}/{name}", sha256=content_sha256(data), size_bytes=len(data))


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def with_origin(rows: pl.DataFrame, lineage: pl.DataFrame, *, languages: bool = False) -> pl.DataFrame:
    """Return ``rows`` (``EXAMPLE_SCHEMA``) with the columns ``source``, the kind of the first record, and
    ``language``, the language of the last question. ``language`` is null unless ``languages`` is set: finding
    it takes time. Neither enters the version's id."""
    kinds = lineage.select("record_id", pl.col("kind").alias("source")).unique("record_id", keep="first")
    first = pl.col("record_ids").list.first().alias("record_id")
    spoken = [language_of(_asked(messages)) if languages else None for messages in rows["messages"].to_list()]
    return (
        rows.with_columns(first)
        .join(kinds, on="record_id", how="left", maintain_order="left")
        .drop("record_id")
        .with_columns(pl.Series("language", spoken, dtype=pl.String))
    )


def with_findings(holdout: pl.DataFrame, build: Build) -> pl.DataFrame:
    """Return the held-out rows with the columns ``label_request``, the request for labels that a row answers,
    and ``answer_in_training``, each if there is any. They do not enter the version's id."""
    for name, found in ((LABEL_REQUEST, build.requests), (ANSWER_IN_TRAINING, build.answers_in_training)):
        column = pl.Series(name, [found.get(example_id) for example_id in holdout["example_id"]])
        holdout = holdout if column.null_count() == len(column) else holdout.with_columns(column)
    return holdout


def _asked(messages: list[dict[str, str]]) -> str:
    return next((one["content"] for one in reversed(messages) if one["role"] == "user"), "")


NOUNS = {"group": "group", "source_id": "source", "validated_by": "expert"}
"""Columns with names from the sources, and the noun with which their pseudonyms begin."""


def under_pseudonyms(build: Build, names: Pseudonyms) -> Build:
    """Return ``build`` with pseudonyms in the columns of ``NOUNS`` of every frame."""
    split, preferences, negatives, replayed = build.split, build.preferences, build.negatives, build.replayed
    return replace(
        build,
        split=replace(split, train=_named(split.train, names), holdout=_named(split.holdout, names)),
        lineage=_named(build.lineage, names),
        quality=replace(build.quality, review=_named(build.quality.review, names)),
        preferences=None if preferences is None else _named(preferences, names),
        negatives=None if negatives is None else _named(negatives, names),
        replayed=replayed and replace(replayed, examples=_named(replayed.examples, names)),
    )  # fmt: skip


def _named(frame: pl.DataFrame, names: Pseudonyms) -> pl.DataFrame:
    columns = [_pseudonyms(frame[column], noun, names) for column, noun in NOUNS.items() if column in frame]
    return frame.with_columns(columns)


def _pseudonyms(column: pl.Series, noun: str, names: Pseudonyms) -> pl.Series:
    distinct = column.drop_nulls().unique()
    pseudonyms = pl.Series([names.of(noun, name) for name in distinct], dtype=pl.String)
    return column.replace_strict(distinct, pseudonyms, return_dtype=pl.String)
