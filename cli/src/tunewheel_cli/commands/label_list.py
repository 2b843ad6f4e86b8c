"""label list."""

from __future__ import annotations

from tunewheel_cli.calling import Call, Project, calling


@calling
def command(call: Call, project: Project) -> None:
    """List the requests for labels of a project, those that wait first."""
    from tunewheel_cli.items import labels_so_far
    from tunewheel_cli.texts import flat

    found = call.client.labels.list(project)

    def tell() -> None:
        for one in sorted(found.requests, key=lambda one: one.state != "waiting"):
            print(f"{one.request_id}  {labels_so_far(one)}  {flat(one.keywords) or 'no keywords'}")
        if not found.requests:
            print(f"no labels were asked for in {project}")

    call.show(found, tell)
