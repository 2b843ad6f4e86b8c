"""The commands about records that wait for a person."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from tunewheel_cli.calling import Call, Limit, Project, Timeout, calling, settle

Reason = Annotated[
    str | None,
    typer.Option(help="Only these: flood, takeover, conflict, injection, correction, expectation."),
]
Records = Annotated[list[str] | None, typer.Argument(help="Ids of records; none: all that wait.")]
Comment = Annotated[str, typer.Option(help="Why; it is kept with the event.")]


@calling
def list_(call: Call, project: Project, reason: Reason = None, limit: Limit = 50) -> None:
    """List the records that the latest build set aside, and why."""
    from tunewheel_cli.texts import print_page

    print_page(
        call, call.client.quarantine.list(project, reason=reason, limit=limit),
        f"nothing waits in the quarantine of {project}",
        ("record", "reason", "state", "trust", "from", "evidence", "question"),
        lambda one: (
            one.record_id, one.reason, one.state, one.trust, one.origin, one.evidence, one.input,
        ),
        shorten=("evidence", "question"),
    )  # fmt: skip


@calling
def release(
    call: Call,
    project: Project,
    records: Records = None,
    reason: Reason = None,
    comment: Comment = "",
    timeout: Timeout = 30.0,
) -> None:
    """Let the next version use records that wait."""
    _judge(call, project, "release", records, reason, comment, timeout)


@calling
def refuse(
    call: Call,
    project: Project,
    records: Records = None,
    reason: Reason = None,
    comment: Comment = "",
    timeout: Timeout = 30.0,
) -> None:
    """Keep records that wait out of every version."""
    _judge(call, project, "refuse", records, reason, comment, timeout)


def _judge(
    call: Call,
    project: str,
    verdict: Literal["release", "refuse"],
    records: list[str] | None,
    reason: str | None,
    comment: str,
    timeout: float,
) -> None:
    judge = call.writer.quarantine.judge
    accepted = judge(project, verdict, records or (), reason=reason, comment=comment)
    settle(call, project, accepted, timeout)
    then = f"; `tunewheel dataset build --project {project}` makes a version with them"
    done = f"{verdict}d {len(accepted.records)} records of {project}"
    call.show(accepted, done + (then if verdict == "release" else ""))
