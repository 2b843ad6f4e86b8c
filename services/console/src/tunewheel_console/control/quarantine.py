"""``GET`` and ``POST /v1/projects/{project}/quarantine``: records that wait for a person."""

from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus
from itertools import groupby

from fastapi import FastAPI, Request
from pydantic import ValidationError
from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.quarantine import QuarantineItem, QuarantineOrder, RecordsJudged
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.data import RecordJudged, RecordKind
from tunewheel_contracts.formats.index import IndexManifest, InjectedPassages
from tunewheel_contracts.formats.quarantine import (
    Quarantine,
    QuarantinedRecord,
    SetAside,
    quarantine_path,
)
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused
from tunewheel_runtime.store import ObjectStore

from tunewheel_console.actions import Actions
from tunewheel_console.control.orders import declared
from tunewheel_console.control.paging import Paged, page_by_number
from tunewheel_console.control.resolving import Key, View, named
from tunewheel_console.project import Project
from tunewheel_console.state import ConsoleState

QUARANTINE = "/v1/projects/{project}/quarantine"
LONGEST, MOST = 4_000, 2_000
"""Most characters of a document's waiting passages in the list, and most documents in it."""
STATES = {"release": "released", "refuse": "refused"}


async def quarantined(view: Project, store: ObjectStore) -> list[QuarantineItem]:
    """Return the records that the latest build set aside, and the documents of which the newest index version
    holds passages back, with people's decisions since. Raises TransientError: the store is away."""
    listed = await _held_by_index(view, store)
    data = await store.read(quarantine_path(view.name))
    with suppress(ValidationError):
        built = () if data is None else Quarantine.model_validate_json(data).records
        ids, injection = {one.record_id for one in listed}, SetAside.INJECTION
        listed += [one for one in built if one.reason != injection or one.record_id not in ids]
    given = sorted(view.commands.by_id.values(), key=lambda one: (one.at, one.command_id))
    verdicts = {one.target: STATES.get(one.action) for one in given if one.type == RecordJudged.type}
    return [
        QuarantineItem.model_validate(one.model_dump() | {"state": verdicts.get(one.record_id) or "waiting"})
        for one in listed
    ]


async def _held_by_index(view: Project, store: ObjectStore) -> list[QuarantinedRecord]:
    """Return the documents with passages that wait; none where the spec holds them back for good."""
    index, spec = view.index, view.spec
    if index is None or not index.counts.waiting or (spec and spec.dataset.injections != "quarantine"):
        return []
    try:
        manifest = decode_data(IndexManifest, await store.read(index.manifest.path) or b"")
        ref = manifest.injections
        data = None if ref is None else await store.read(ref.path)
        passages = decode_data(InjectedPassages, data or b"").passages
    except InvalidEvent:  # deleted meanwhile, or damaged: the next version replaces it
        return []
    waiting = sorted((one for one in passages if not one.released), key=lambda one: one.record_id)
    found: list[QuarantinedRecord] = []
    for record_id, group in groupby(waiting, key=lambda one: one.record_id):
        first, *others = group
        text = "\n\n".join(one.text for one in (first, *others))
        found.append(
            QuarantinedRecord(
                record_id=record_id, reason=SetAside.INJECTION, kind=RecordKind.DOCUMENT,
                evidence=f'{first.document_id} says "{first.evidence}"', trust=first.trust,
                origin=first.origin, input=text[:LONGEST],
            )
        )  # fmt: skip
    return found[:MOST]


def add_quarantine(api: FastAPI, state: ConsoleState, actions: Actions, store: ObjectStore) -> None:
    @api.get(QUARANTINE)
    @needs(Role.VIEWER)
    async def list_quarantine(view: View, asked: Paged, reason: str | None = None) -> Page[QuarantineItem]:
        """The records that the latest build set aside, by reason, and the documents of which the index holds
        passages back."""
        found = await quarantined(view, store)
        shown = [one for one in found if reason in (None, one.reason)]
        return page_by_number(len(shown), asked, lambda begin, end: shown[begin:end])

    @api.post(QUARANTINE, status_code=HTTPStatus.ACCEPTED)
    @needs(Role.REVIEWER)
    async def judge_quarantine(
        request: Request, project: str, order: QuarantineOrder, key: Key = None
    ) -> RecordsJudged:
        """Release records, so that the next build uses them, or refuse them for good."""
        found = await quarantined(declared(state, project), store)
        asked = tuple(dict.fromkeys(order.records))
        listed = {one.record_id for one in found}
        if unknown := next((name for name in asked if name not in listed), None):
            reason = f"{unknown} is not in the quarantine of {project}; list it again"
            raise Refused(HTTPStatus.NOT_FOUND, "records", reason)
        if not asked:
            waiting = (one for one in found if one.state == "waiting" and order.reason in (None, one.reason))
            asked = tuple(dict.fromkeys(one.record_id for one in waiting))
        if not asked:
            raise Refused(HTTPStatus.NOT_FOUND, "reason", f"nothing waits in the quarantine of {project}")
        events = await actions.give_each(
            RecordJudged, ({"record_id": name} for name in asked), project=project, verdict=order.verdict,
            comment=order.comment, principal=caller_of(request).principal, request=named(order, key),
        )  # fmt: skip
        ids = tuple(event.id for event in events)
        return RecordsJudged(project=project, command_id=ids[0], command_ids=ids, records=asked)
