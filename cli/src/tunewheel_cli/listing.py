"""The commands that list a page of what the API has."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from tunewheel_cli.calling import Call, Limit, Project, calling

Columns = Mapping[str, str | Callable[[Any], Any]]
"""By heading, the field of an item, with dots into a part of it, or a function of the item."""


def facts(item: Any, columns: Columns) -> Iterator[tuple[str, Any]]:
    """Yield what ``columns`` says of an item, for ``texts.print_facts``."""
    for name, column in columns.items():
        yield name, column(item) if callable(column) else reduce(getattr, column.split("."), item)


def print_page(call: Call, page: Any, nothing: str, columns: Columns, *, shorten: Sequence[str] = ()) -> None:
    """Print a page as JSON or as a table; ``nothing`` says that it is empty."""
    from tunewheel_cli.texts import print_table

    def tell() -> None:
        if page.items:
            rows = [[value for _, value in facts(item, columns)] for item in page.items]
            print_table([*columns], rows, shorten=shorten)
        else:
            print(nothing)

    call.show(page, tell)
    if page.total > len(page.items):
        call.tell(f"{len(page.items)} of {page.total:,}; --limit shows more")


def listing(
    noun: str, about: str, nothing: str, columns: Columns, *, shorten: Sequence[str] = (), **filters: Any
) -> Callable[..., None]:
    """Return the command that lists ``noun``, a resource of the client.

    Args:
        about: the command's help.
        nothing: what an empty list says, with ``{project}`` where the list is of a project.
        filters: by parameter of the client's ``list``, the option.
    """
    in_project = "{project}" in nothing

    def command(call: Call, *, project: str = "", **chosen: Any) -> None:
        page = getattr(call.client, noun).list(*([project] if in_project else []), **chosen)
        print_page(call, page, nothing.format(project=project), columns, shorten=shorten)

    kind = inspect.Parameter.KEYWORD_ONLY
    own = [inspect.Parameter("project", kind, annotation=Project)] if in_project else []
    own += [inspect.Parameter(name, kind, default=None, annotation=one) for name, one in filters.items()]
    limit = inspect.Parameter("limit", kind, default=50, annotation=Limit)
    call = inspect.Parameter("call", inspect.Parameter.POSITIONAL_ONLY)
    command.__signature__ = inspect.Signature([call, *own, limit])  # type: ignore[attr-defined]
    command.__doc__ = about
    return calling(command)
