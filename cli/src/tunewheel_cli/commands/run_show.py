"""run show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewheel_cli.calling import Call, Project, Run, calling

if TYPE_CHECKING:
    from tunewheel_contracts.api.runs import RunDetail


@calling
def command(call: Call, run: Run, project: Project) -> None:
    """Show a training run: its progress, its losses, its verdict, and why it failed."""
    found = call.client.runs.show(project, run)
    call.show(found, lambda: _print(found))


def _print(found: RunDetail) -> None:
    from tunewheel_cli.texts import flat, print_facts

    now, failure = found.progress, found.failure
    losses = (found.losses[0], found.losses[-1]) if found.losses else ()
    print_facts(
        (
            ("run", found.run_id),
            ("state", found.state),
            ("step", f"{found.step} of {found.total_steps}" if found.total_steps else None),
            ("loss", " → ".join(f"{one.loss:.3f}" for one in losses)),
            ("speed", now and f"{now.tokens_per_second:.0f} tokens/s, {now.eta_seconds:.0f} s left"),
            ("verdict", found.verdict),
            ("why", found.why),
            ("to mend", failure and f"{failure.field} {failure.reason}"),
            ("dataset", found.dataset_id),
            ("model", found.model_id),
            ("base", found.base),
            ("method", found.method),
            ("device", found.device),
            ("began", found.started_at),
            ("ended", found.ended_at),
            ("evaluations", found.evaluations),
        )
    )
    for one in found.controls:
        print(f"  {flat(one.at)}  {one.action}" + (f" by {flat(one.by)}" if one.by else ""))
    for caution in found.cautions:
        print(f"caution: {flat(caution)}")
