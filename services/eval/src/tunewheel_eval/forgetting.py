"""Deletes models' outputs about examples whose records were erased.

Curate's proof (``erasure.completed``) says which dataset versions held the records, and where the records are
listed. The rest of a file is written under a new name before the old file is deleted, so a repetition finds
one of the two. Scorecards keep their figures, which are only numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from tunewheel_contracts.erasures import place_of, proof_of
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.dataset import ChatExample, DatasetManifest
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.generations import MARK, generations_path
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_eval.artifacts import StoredFile, measurement_file, measurements_of, read_holdout
from tunewheel_eval.measurement import HoldoutRow, RepeatRow, Row, example_key, read_measurement
from tunewheel_eval.page import make_page
from tunewheel_eval.plan import read_plans
from tunewheel_eval.repeats import all_keys
from tunewheel_eval.reviewing.erasing import published_corrections, review_files
from tunewheel_eval.reviews import read_scorecard

log = structlog.get_logger(__name__)
HOLDER = "eval"


class Erased:
    """A fold over curate's proofs: the erased records by dataset version. Applying a proof twice changes
    nothing."""

    def __init__(self) -> None:
        self._proofs: dict[str, dict[str, ErasureCompleted]] = {}
        """By project and event id."""

    def apply(self, event: Envelope[Any]) -> None:
        """Apply one event; others than curate's proofs are ignored."""
        data = event.data
        if isinstance(data, ErasureCompleted) and data.holder == "curate" and data.finding is not None:
            self._proofs.setdefault(data.project, {})[event.id] = data

    async def left_of(
        self, examples: tuple[ChatExample, ...], project: str, dataset_id: str, store: ObjectStore
    ) -> tuple[ChatExample, ...]:
        """Return the ``examples`` of a version that were not made of erased records."""
        for proof in self._proofs.get(project, {}).values():
            if dataset_id in proof.dataset_ids:
                records = await _record_ids(proof, store) or frozenset()
                examples = tuple(one for one in examples if records.isdisjoint(one.record_ids))
        return examples

    async def forget_in(self, project: str, dataset_id: str, store: ObjectStore) -> None:
        """Delete outputs on a version about erased examples, or with passages of erased documents, that were
        written before this process knew of the erasure."""
        erased = [await _record_ids(proof, store) for proof in self._proofs.get(project, {}).values()]
        records = frozenset[str]().union(*(one for one in erased if one is not None))
        if records:
            for file in await _files_of(project, dataset_id, records, store):
                await file.rewrite(store)


@dataclass(frozen=True, slots=True)
class _Version:
    """A dataset version. ``manifest`` is None if it cannot be read."""

    manifest: DatasetManifest | None


async def forget(event: Envelope[ErasureCompleted], store: ObjectStore) -> ErasureCompleted | None:
    """Carry out the erasure of curate's proof, and return eval's own proof. None: ``event`` is not curate's.
    Raises TransientError: the store is away."""
    data = event.data
    if data.holder != "curate":
        return None
    records = await _record_ids(data, store)
    versions = {*data.dataset_ids, *(await _asked_with_passages(data.project, store) if records else ())}
    files = [f for name in sorted(versions) for f in await _files_of(data.project, name, records, store)]
    taken = str(sum(file.taken for file in files)).encode()
    request_id = event.causation_id or event.id
    first = await store.first(f"{place_of(data.project, request_id)}.{HOLDER}", taken)
    for file in files:
        await file.rewrite(store)
    log.info("erased", erasure_id=data.erasure_id, files=len(files), outputs=int(taken))
    return proof_of(data, holder=HOLDER, erased_by=HOLDER, records=int(first))


async def _record_ids(proof: ErasureCompleted, store: ObjectStore) -> frozenset[str] | None:
    """Return the ids of the erased records; None: they cannot be found any more."""
    if proof.finding is None:  # a proof of an earlier release
        return None
    try:
        found = ErasureFinding.model_validate_json(await store.get(proof.finding))
    except (ArtifactMissing, CorruptArtifact) as error:
        log.error("erased_records_unknown", erasure_id=proof.erasure_id, error=str(error))
        return None
    return None if found.records and not found.record_ids else frozenset(found.record_ids)


async def erase_corrections(
    event: Envelope[ErasureCompleted], store: ObjectStore
) -> tuple[ErasureRequested, ...]:
    """Return requests to erase reviewers' corrections of the erased examples, which ingest has as examples of
    their own. Call this before ``forget``: it deletes the answers that lead to these corrections. Raises
    TransientError: the store is away."""
    data = event.data
    if data.holder != "curate":
        return ()
    records, found = await _record_ids(data, store), set[str]()
    for dataset_id in data.dataset_ids:
        version = await _version(data.project, dataset_id, store)
        if version is not None:
            names, _ = await _erased(version, records, store)
            found.update(await published_corrections(dataset_id, names, store))
    place = place_of(data.project, event.causation_id or event.id)
    first = await store.first(f"{place}.{HOLDER}-corrections", json.dumps(sorted(found)).encode())
    return tuple(
        ErasureRequested(
            project=data.project,
            erasure_id=f"{data.erasure_id[:200]} {name}",
            source_id=name,
            requested_by=HOLDER,
            reason="a reviewer's correction of what was erased",
        )
        for name in json.loads(first)
    )


async def _files_of(
    project: str, dataset_id: str, records: frozenset[str] | None, store: ObjectStore
) -> list[StoredFile]:
    """Return the files with outputs on held-out examples of ``records``, or on prompts with passages of these
    records. If the records, the manifest or the rows cannot be read any more, return all outputs on the
    version.
    """
    version = await _version(project, dataset_id, store)
    if version is None:
        return []
    names, keys = await _erased(version, records, store)
    plans = [one for one in await _plans(store) if one.rows_of == dataset_id]
    written = await _written(plans, store)
    if names is not None and records is not None:
        lines = [json.loads(line) for data in written.values() for line in data.splitlines()]
        names |= {one["example_id"] for one in lines if not records.isdisjoint(one.get("shown", ()))}
    # The generations come last, because a repetition needs them to find the work.
    return [
        *await _measurements(dataset_id, keys, records or frozenset(), store),
        *(await review_files(dataset_id, names, store) if names is None or names else ()),
        *(await _generations(plans, written, names, store) if names is None or names else ()),
    ]


async def _version(project: str, dataset_id: str, store: ObjectStore) -> _Version | None:
    """Return a version of ``project``; None: it has no such version."""
    content = await store.read(f"datasets/{dataset_id}/manifest.json")
    if content is None:
        return None
    manifest = _manifest(content, dataset_id)
    return _Version(manifest) if manifest is None or manifest.project == project else None


async def _erased(
    version: _Version, records: frozenset[str] | None, store: ObjectStore
) -> tuple[set[str] | None, set[str] | None]:
    """Return the ids and the keys of the held-out examples of ``records``; None for both if they are
    unknown."""
    manifest = version.manifest
    holdout = await _holdout(manifest, store) if manifest is not None else None
    if manifest is None or holdout is None or records is None:
        return None, None
    limit = manifest.spec.task.max_output_tokens
    erased = [one for one in holdout if not records.isdisjoint(one.record_ids)]
    keys = [all_keys(example_key(one, max_output_tokens=limit)) for one in erased]
    return {one.example_id for one in erased}, set[str]().union(*keys)


def _manifest(content: bytes, dataset_id: str) -> DatasetManifest | None:
    try:
        return decode_data(DatasetManifest, content)
    except InvalidEvent:  # do not log the error: it may quote the file
        log.error("manifest_damaged", dataset_id=dataset_id)
        return None


async def _holdout(version: DatasetManifest, store: ObjectStore) -> tuple[ChatExample, ...] | None:
    try:
        return await read_holdout(store, version.holdout)
    except InvalidEvent:
        return None


async def _measurements(
    dataset_id: str, keys: set[str] | None, records: frozenset[str], store: ObjectStore
) -> list[StoredFile]:
    found: list[StoredFile] = []
    for model in await store.folders("measurements"):
        for path in await store.list(measurements_of(model, dataset_id)):
            measured = read_measurement((await store.read(path) or b"").decode("utf-8", "replace"))
            rows = measured.rows if measured is not None else {}
            left = [
                key
                for key, row in rows.items()
                if keys is not None and keys.isdisjoint(_names(row)) and records.isdisjoint(_shown(row))
            ]
            if measured is None or len(left) < len(rows):
                kept = measurement_file(measured.only(left), dataset_id) if measured and left else None
                found.append(StoredFile(path, len(rows) - len(left), kept))
    return found


def _names(row: Row) -> set[str]:
    """Return the keys of a row's example: that of its prompt, and that of the example in its dataset."""
    of = row.of if isinstance(row, HoldoutRow | RepeatRow) else None
    return {row.key} if of is None else {row.key, of}


def _shown(row: Row) -> tuple[str, ...]:
    return row.shown if isinstance(row, HoldoutRow | RepeatRow) else ()


async def _plans(store: ObjectStore) -> list[EvaluationPlan]:
    return [plan for run_id in await store.folders("runs") for plan in await read_plans(store, run_id)]


async def _asked_with_passages(project: str, store: ObjectStore) -> set[str]:
    """Return the dataset versions of ``project`` whose questions were asked with passages."""
    return {one.rows_of for one in await _plans(store) if one.project == project and one.index is not None}


async def _written(plans: Sequence[EvaluationPlan], store: ObjectStore) -> dict[str, bytes]:
    """Return the files with the outputs of the evaluations ``plans``, by path."""
    cards = {plan.scorecard_id for plan in plans}
    found: dict[str, bytes] = {}
    for path in await store.list("scorecards") if cards else ():
        card, mark, _ = path.removeprefix("scorecards/").partition(MARK)
        if card in cards and mark:
            found[path] = await store.read(path) or b""
    return found


async def _generations(
    plans: Sequence[EvaluationPlan], written: Mapping[str, bytes], names: set[str] | None, store: ObjectStore
) -> list[StoredFile]:
    # Pages come first, because they are made from the generations.
    found: list[StoredFile] = []
    found += [page for plan in plans if (page := await _page(plan, names, store)) is not None]
    for path, data in written.items():
        card = path.removeprefix("scorecards/").partition(MARK)[0]
        lines = data.splitlines(keepends=True)
        left = [line for line in lines if names is not None and json.loads(line)["example_id"] not in names]
        if len(left) < len(lines):
            content = b"".join(left)
            kept = (generations_path(card, content), content) if left else None
            found.append(StoredFile(path, _outputs(lines) - _outputs(left), kept))
    return found


async def _page(plan: EvaluationPlan, names: set[str] | None, store: ObjectStore) -> StoredFile | None:
    """Return a scorecard's page without the examples ``names``; None: without any example."""
    stored = await read_scorecard(store, plan) if await store.exists(plan.page_path) else None
    if stored is None:
        return None
    return StoredFile(
        plan.page_path, 0, (plan.page_path, await make_page(store, plan, stored[0], without=names))
    )


def _outputs(lines: list[bytes]) -> int:
    """Return how many outputs ``lines`` hold. Earlier releases wrote a line per contestant."""
    return sum(len(json.loads(line).get("answers", [line])) for line in lines)
