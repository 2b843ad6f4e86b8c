"""project list."""

from __future__ import annotations

from tunewheel_cli.calling import Call, Limit, calling


@calling
def command(call: Call, limit: Limit = 50) -> None:
    """List the projects that you may read: where each is on the wheel, and what it serves."""
    from tunewheel_cli.texts import print_page

    print_page(
        call, call.client.projects.list(limit=limit), "no project is declared",
        ("project", "is", "since", "champion", "datasets", "runs", "alarms", "last"),
        lambda one: (
            one.project, one.place, one.since, one.champion or "", one.counts.datasets, one.counts.runs,
            one.counts.open_alarms, one.last,
        ),
        shorten=("last", "is"),
    )  # fmt: skip
