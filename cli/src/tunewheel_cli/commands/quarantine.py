"""The commands about records that wait for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import typer

from tunewheel_cli.calling import Call, Project, Timeout, calling, settle
from tunewheel_cli.listing import listing

Reason = Annotated[
    str | None,
    typer.Option(help="Only these: flood, takeover, conflict, injection, correction, expectation."),
]
Records = Annotated[list[str] | None, typer.Argument(help="Ids of records; none: all that wait.")]
list_ = listing(
    "quarantine",
    "List the records that the latest build set aside, and the documents of which the index holds passages "
    "back, and why.",
    "nothing waits in the quarantine of {project}",
    {
        "record": "record_id", "reason": "reason", "state": "state", "trust": "trust", "from": "origin",
        "evidence": "evidence", "question": "input",
    },
    shorten=("evidence", "question"),
    reason=Reason,
)  # fmt: skip


def _judging(verdict: Literal["release", "refuse"], about: str, then: str = "") -> Callable[..., None]:
    def judge(
        call: Call,
        project: Project,
        records: Records = None,
        reason: Reason = None,
        comment: Annotated[str, typer.Option(help="Why; it is kept with the event.")] = "",
        timeout: Timeout = 30.0,
    ) -> None:
        judge = call.writer.quarantine.judge
        accepted = judge(project, verdict, records or (), reason=reason, comment=comment)
        settle(call, project, accepted, timeout)
        done = f"{verdict}d {len(accepted.records)} records of {project}"
        call.show(accepted, done + then.format(project=project))

    judge.__doc__ = about
    return calling(judge)


release = _judging(
    "release",
    "Let the next version of dataset and index use records that wait.",
    "; `tunewheel dataset build --project {project}` makes a version with them",
)
refuse = _judging("refuse", "Keep records that wait out of every version.")
