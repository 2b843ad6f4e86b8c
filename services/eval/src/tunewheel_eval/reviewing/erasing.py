"""Removes erased examples from review sets, and reviewers' texts about them.

A set keeps its path, because services read it by path. So after an erasure its hash differs from the one in
``review.requested``. Decisions stay, as figures.
"""

from __future__ import annotations

from collections.abc import Collection

from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.artifacts import StoredFile
from tunewheel_eval.plan import read_plan
from tunewheel_eval.reviewing.cases import FOLDER, Cases, Submission, set_path, submission_path
from tunewheel_eval.reviewing.corrections import corrections


async def review_files(
    dataset_id: str, names: Collection[str] | None, store: ObjectStore
) -> list[StoredFile]:
    """Return the files of reviews on a dataset version with text about the examples ``names``; None: about
    any example."""
    cases, found = Cases(store), list[StoredFile]()
    for review_id in await _reviews_on(dataset_id, cases, store):
        reviewed = await cases.read_set(review_id)
        if reviewed is None:
            continue
        left = _left(reviewed, names)
        kept = {item.item_id for item in left.items} if left else set[str]()
        gone = {item.item_id for item in reviewed.items} - kept
        if not gone:
            continue
        # The set comes last, because a repetition needs it to find the answers.
        for one in await cases.submissions(review_id):
            found += _answers_file(review_id, one, gone)
        path = set_path(review_id)
        content = (path, left.model_dump_json(indent=1).encode()) if left else None
        found.append(StoredFile(path, 2 * len(gone), content))
    return found


async def published_corrections(
    dataset_id: str, names: Collection[str] | None, store: ObjectStore
) -> tuple[str, ...]:
    """Return the ids of the corrections that decided reviews published about the examples ``names``."""
    cases, found = Cases(store), list[str]()
    for review_id in await _reviews_on(dataset_id, cases, store):
        reviewed = await cases.read_set(review_id)
        over = await cases.decision(review_id) or await cases.rejection(review_id)
        if reviewed is None or over is None:
            continue
        left = _left(reviewed, names)
        kept = {item.item_id for item in left.items} if left else set[str]()
        gone = [item for item in reviewed.items if item.item_id not in kept]
        if gone:
            submissions = await cases.submissions(review_id)
            of_gone = reviewed.model_copy(update={"items": tuple(gone)})
            found += [one.example_id for one in corrections(of_gone, submissions)]
    return tuple(found)


async def _reviews_on(dataset_id: str, cases: Cases, store: ObjectStore) -> list[str]:
    found: list[str] = []
    for review_id in await store.folders(FOLDER):
        case = await cases.read(review_id)
        if case is None:
            continue
        plan = await read_plan(store, case.requested.run_id, case.requested.evaluation_id)
        if dataset_id == (plan.rows_of if plan is not None else case.requested.dataset_id):
            found.append(review_id)
    return found


def _left(reviewed: ReviewSet, names: Collection[str] | None) -> ReviewSet | None:
    items = tuple(item for item in reviewed.items if names is not None and item.example_id not in names)
    return reviewed.model_copy(update={"items": items}) if items else None


def _answers_file(review_id: str, submission: Submission, gone: Collection[str]) -> list[StoredFile]:
    """Return one person's file without the text of answers to the items ``gone``. Empty if the file has none.
    The preferences stay."""
    answers = tuple(
        one.model_copy(update={"corrected": None}) if one.item_id in gone else one
        for one in submission.answers
    )
    if answers == submission.answers:
        return []
    path = submission_path(review_id, submission.review)
    content = submission.model_copy(update={"answers": answers}).model_dump_json(indent=1).encode()
    return [StoredFile(path, 0, (path, content))]
