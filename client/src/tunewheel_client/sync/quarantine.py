# Generated from aio/quarantine.py by scripts/client_sync.py; change that file instead.
"""Records that wait for a person before they train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from tunewheel_contracts.api.paging import Page
from tunewheel_contracts.api.quarantine import QuarantineItem, RecordsJudged

from tunewheel_client.sync.resource import Paging, Resource


class Quarantine(Resource):
    """The quarantine of a project: records that its latest build set aside."""

    def list(
        self, project: str, *, reason: str | None = None, **paging: Unpack[Paging]
    ) -> Page[QuarantineItem]:
        """Return a page of records; of those set aside for ``reason`` where one is named."""
        return self._read(Page[QuarantineItem], project, "quarantine", reason=reason, **paging)

    def judge(
        self,
        project: str,
        verdict: Literal["release", "refuse"],
        records: Sequence[str] = (),
        *,
        reason: str | None = None,
        comment: str = "",
        request: str | None = None,
    ) -> RecordsJudged:
        """Let the next build use ``records``, or refuse them for good.

        Args:
            records: ids of records; none: all that wait, or all that wait for ``reason``.
        """
        told = {
            "verdict": verdict, "records": list(records), "reason": reason, "comment": comment,
            "request": request,
        }  # fmt: skip
        return self._order(RecordsJudged, project, "quarantine", order=told)
