"""Writes the reference of docs/api.md from the console's own description of its API.

python scripts/api_reference.py            write the page anew
python scripts/api_reference.py --check    change nothing; exit 1 when the page is stale
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewheel_console.main import make_app
from tunewheel_console.settings import Settings
from tunewheel_runtime.identity.guard import Need, needs_of
from tunewheel_runtime.identity.roles import Role

PAGE = Path(__file__).resolve().parents[1] / "docs/api.md"
BEGIN, END = "<!-- drawn: routes -->\n", "<!-- end -->"
PROJECT = "/v1/projects/{project}"
PAGED = {"limit", "after"}
"""The parameters that every list has: the page tells them once."""
HEAD = ("| request | role | takes | answers | |", "|---|---|---|---|---|")


def app_of_console() -> Any:
    """Return the console's app; nothing of it runs."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        settings = Settings(
            store_url=place.as_uri(), cache_dir=place, work_dir=place, identity="open", http_port=0
        )
        return make_app(settings).doors.mounted  # as its process serves it


def reference(app: Any) -> Iterator[str]:
    """Yield the page's lines: for each noun its routes, with role, parameters, body and answer."""
    roles = {
        f"{method} {path.replace(':path}', '}')}": _asks(need)
        for path, route, need in needs_of(app.routes)
        if need is not None
        for method in getattr(route, "methods", None) or ()
    }
    by_noun: defaultdict[str, list[str]] = defaultdict(list)
    for path, operations in app.openapi()["paths"].items():
        for method, told in operations.items():
            name = f"{method.upper()} {path}"
            short, asked = name.replace(f"{PROJECT}/", "…/"), roles[name]
            cells = (f"`{short}`", asked, _takes(told), _gives(told), _says(told))
            by_noun[told["tags"][0]].append(f"| {' | '.join(cells)} |")
    for noun, rows in sorted(by_noun.items()):
        yield from (f"### {noun}", "", *HEAD, *rows, "")


def _asks(need: Need) -> str:
    if len(need.roles) == len(Role):
        return "any"
    named = " or ".join(role.value for role in Role if role in need.roles) or "none"
    return f"{named} in all projects" if need.everywhere else named


def _takes(told: Mapping[str, Any]) -> str:
    asked = [one for one in told.get("parameters", ()) if one["in"] == "query"]
    names = [f"`{one['name']}`" for one in asked if one["name"] not in PAGED]
    paged = ["a page"] if {one["name"] for one in asked} >= PAGED else []
    sent = told.get("requestBody", {}).get("content", {}).values()
    body = [_shape(kind["schema"]) or "a spec" for kind in sent]
    return ", ".join([*dict.fromkeys(body), *names, *paged])


def _gives(told: Mapping[str, Any]) -> str:
    for status, answer in told["responses"].items():
        if status.startswith("2"):
            kinds = answer.get("content", {})
            shapes = [
                _shape(one["schema"]) if "json" in kind and one.get("schema") else f"`{kind}`"
                for kind, one in kinds.items()
            ]
            return " ".join([status, *(shape for shape in shapes if shape)])
    return ""


def _shape(schema: Mapping[str, Any]) -> str:
    """Return the names of the models in a schema."""
    named = [schema["$ref"]] if "$ref" in schema else [one.get("$ref", "") for one in schema.get("anyOf", ())]
    names = [name.rpartition("/")[2].replace("Page_", "page of ").removesuffix("_") for name in named if name]
    return " or ".join(f"`{name}`" for name in names)


def _says(told: Mapping[str, Any]) -> str:
    text = told.get("description", "").split("\n\n")[0]
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def drawn(page: str) -> str:
    """Return the page with its reference written anew.

    Raises:
        ValueError: the page lacks the marks.
    """
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE.name} holds no {BEGIN.strip()} with {END} below it; add both")
    return before + mark + "\n".join(reference(app_of_console())) + end + after


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is fresh")
    check = parser.parse_args(arguments).check
    page = PAGE.read_text("utf-8")
    fresh = drawn(page)
    if not check:
        PAGE.write_text(fresh, "utf-8")
    elif fresh != page:
        print(f"{PAGE} is stale; run `make generate`")
    return int(check and fresh != page)


if __name__ == "__main__":
    raise SystemExit(main())
