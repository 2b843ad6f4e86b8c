"""dataset list."""

from __future__ import annotations

from tunewheel_cli.calling import Call, Limit, Project, calling


@calling
def command(call: Call, project: Project, limit: Limit = 50) -> None:
    """List the dataset versions of a project."""
    from tunewheel_cli.texts import print_page

    print_page(
        call, call.client.datasets.list(project, limit=limit), f"{project} has no dataset version yet",
        ("dataset", "built", "because of", "train", "held out", "preferences", "runs"),
        lambda one: (
            one.dataset_id, one.created_at, one.reason, one.counts.train, one.counts.holdout,
            one.counts.preferences, one.runs,
        ),
    )  # fmt: skip
