"""Draws the pages from their templates."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import SequenceMatcher
from functools import cache
from typing import Any, cast
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from tunewheel_contracts.formats.sweep import Lead
from tunewheel_contracts.topics import NOT_SHOWN, TOPICS
from tunewheel_outputs.parsing import Unparsed, parse
from tunewheel_outputs.texts import UNSPACED
from tunewheel_runtime.identity.guard import caller_of
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.letters import visible
from tunewheel_console.logins import root_of
from tunewheel_console.sessions import session_of

NOUNS = (
    "turns", "datasets", "runs", "evaluations", "models", "completions", "alarms", "detectors", "labels",
    "reviews", "documents", "quarantine", "playground", "commands", "erasures",
)  # fmt: skip
"""The lists of a project, in the order in which a turn passes them."""
_HASH = re.compile(r"((?:[\w.-]*-)?[0-9a-f]{8})[0-9a-f]{4,}")
EVENTS = " ".join(sorted(topic.name for topic in TOPICS if topic not in NOT_SHOWN))
MOST_CHARACTERS = 4_000
"""How much a page with several rows shows of one text. The page of a row shows the whole."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy of the pages: texts of models and customers run no script and load nothing."""


def query_of(request: Request) -> dict[str, str]:
    """Return the query of a page. Several values of one field are joined by commas."""
    given = request.query_params
    return {name: ",".join(given.getlist(name)) for name in given}


def draw(template: str, request: Request, *, live: bool, **found: Any) -> str:
    """Return the page of ``template`` for the caller of ``request``. ``live``: an event draws it anew."""
    root, project = root_of(request), request.path_params.get("project")
    session, query = session_of(request.scope), query_of(request)
    caller = caller_of(request)
    events = f"{root}v1/events" + (f"?{urlencode({'project': project})}" if project else "")

    def address(*parts: object) -> str:
        """Return the relative address of a page of the project, or of another page if there is none."""
        within = ("projects", project, *parts) if project else parts
        return root + "/".join(quote(str(part), safe="") for part in within)

    def link(noun: str, name: object) -> Markup | str:
        return (
            Markup('<a class="id" href="{}">{}</a>').format(address(noun, name), short(name)) if name else "—"
        )

    def again(**changes: object) -> str:
        """Return the address of this page with another query. It begins at its first item unless ``changes``
        name another one."""
        kept = {name: value for name, value in query.items() if name != "after"} | changes
        return "?" + urlencode({name: value for name, value in kept.items() if value not in (None, "")})

    names = [name for field, name in request.path_params.items() if field != "project"]
    told = {"page": template, **found}
    told["title"] = found.get("title") or (names[-1] if names else words(told["page"]).capitalize())
    section = request.url.path.partition(f"/projects/{project}/")[2].partition("/")[0]
    return _templates().get_template(f"{template}.html").render(
        root=root, project=project, section=section, address=address, link=link, again=again,
        nouns=NOUNS,
        caller=caller, may=lambda role, of=project: caller.may(Role(role), of),
        sees_all=lambda role: caller.projects_of(Role(role)) is None, roles=[role.value for role in Role],
        csrf=session.csrf if session else None, query=query, params=request.path_params,
        events=events if live else None, event_types=EVENTS, **told,
    )  # fmt: skip


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("tunewheel_console.pages"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.globals |= dict[str, Any](marked=marked)
    made.filters.update(
        when=when, lasting=lasting, figure=figure, percent=percent, words=words, pretty=pretty,
        short=short, named=named, curve=curve, fields=fields, legible=legible, graph=graph_of,
        highlighted=highlighted, cut=cut, lead=lead_words,
    )  # fmt: skip
    return made


def when(time: str | None) -> Markup | str:
    """Return a time in UTC, to the minute, with its second in a title."""
    if not time:
        return "—"
    at = datetime.fromisoformat(time).astimezone(UTC)
    text = '<time datetime="{}" title="{:%Y-%m-%d %H:%M:%S} UTC">{:%Y-%m-%d %H:%M}</time>'
    return Markup(text).format(time, at, at)


def short(name: object) -> Markup | str:
    """Return an id with the first digits of its hash, and the whole id in a title."""
    found = _HASH.fullmatch(str(name))
    return Markup('<span title="{}">{}…</span>').format(name, found[1]) if found else str(name)


def named(model: str | None) -> Markup | str:
    """Return a base model's name without its owner or folder, and the whole name in a title."""
    owner, slash, name = (model or "—").rpartition("/")
    return Markup('<span title="{}">{}</span>').format(model, name) if slash and owner else name


def lasting(seconds: float | None) -> str:
    """Return a duration in its two largest units."""
    if seconds is None:
        return "—"
    units, rest = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)), round(seconds)
    parts = list[str]()
    for name, size in units:
        number, rest = divmod(rest, size)
        parts += [f"{number} {name}"] if number else []
    return " ".join(parts[:2]) or f"{seconds:.1f} s"


def figure(value: float | None) -> str:
    """Return a number with three digits, or whole."""
    if value is None:
        return "—"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    )


def percent(part: float, whole: float) -> str:
    """Return a share in percent, without the sign."""
    return f"{100 * part / whole:.3g}" if whole else "0"


def words(name: str) -> str:
    """Return a name of the code as words."""
    return name.replace("_", " ").replace(".", ": ")


def curve(points: list[dict[str, Any]], field: str = "loss", scale: float = 1) -> list[tuple[int, float]]:
    """Return the points of a run's curve that have the figure ``field``, in units of ``scale``."""
    return [(one["step"], one[field] / scale) for one in points if one.get(field) is not None]


def fields(answer: str) -> dict[str, Any]:
    """Return the fields of an answer that is a JSON object. Any other text has none."""
    try:
        value = parse(answer)
    except Unparsed:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def highlighted(text: str, places: Iterable[tuple[int, int]]) -> Markup:
    """Return ``text`` with the characters of ``places``, each from its begin up to its end, marked."""
    parts, at = list[str](), 0
    for begin, end in places:
        parts += [escape(text[at:begin]), Markup("<mark>{}</mark>").format(text[begin:end])]
        at = end
    return Markup().join([*parts, escape(text[at:])])


def cut(text: str) -> str:
    """Return the beginning of a text in a list of rows, which say how much is left out."""
    more = len(text) - MOST_CHARACTERS
    return f"{text[:MOST_CHARACTERS]} … ({more:,} more characters)" if more > 0 else text


def lead_words(lead: Mapping[str, Any]) -> str:
    """Return what the command says of the lead of a sweep's best recipe."""
    return Lead(**lead).words


def pretty(value: Any) -> Markup:
    """Return JSON, indented. A string is its own text."""
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return escape(text)


def legible(text: str) -> str:
    """Return a text of anybody's, indented if it is JSON, without characters that nobody sees."""
    try:
        return visible(json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    except (ValueError, RecursionError):
        return visible(text)


LEAST_ALIKE = 0.3
"""Marks in texts that share less would be everywhere."""
MOST_TOKENS = 4_000
"""Longer texts have no marks: the time grows faster than their length."""
_TOKEN = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])\w)+|\s+|.")


def marked(left: str, right: str) -> tuple[Markup, Markup]:
    """Return both texts for a page: what only one of them has is marked."""
    sides = [_TOKEN.findall(text) for text in (left, right)]
    plain = escape(left), escape(right)
    if max(map(len, sides)) > MOST_TOKENS:
        return plain
    matcher = SequenceMatcher(None, sides[0], sides[1])
    blocks = matcher.get_matching_blocks()
    alike = sum(_words(sides[0][one.a : one.a + one.size]) for one in blocks)
    if 2 * alike < LEAST_ALIKE * sum(map(_words, sides)):
        return plain
    shown = [Markup(), Markup()]
    for kind, *places in matcher.get_opcodes():
        for side, (begin, end) in enumerate((places[:2], places[2:])):
            text = "".join(sides[side][begin:end])
            is_marked = kind != "equal" and text.strip()
            shown[side] += Markup("<mark>{}</mark>").format(text) if is_marked else escape(text)
    return shown[0], shown[1]


def _words(tokens: list[str]) -> int:
    return sum(not token.isspace() for token in tokens)


KINDS = (
    "record", "request", "drift", "dataset", "run", "evaluation", "review", "model", "rollout", "step",
    "command", "erasure",
)  # fmt: skip
MOST = 40
"""The most boxes of one column. The list below the picture has all."""
WIDTH, HEIGHT, GAP, STEP = 190, 38, 60, 50
TOP = 30


@dataclass(frozen=True, slots=True)
class Box:
    """A node and the place of its left upper corner, in pixels."""

    node: Mapping[str, Any]
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Graph:
    width: int
    height: int
    columns: tuple[tuple[str, int], ...]
    """The kinds, each with the left edge of its column."""
    boxes: tuple[Box, ...]
    lines: tuple[str, ...]
    """The edges as SVG paths."""
    left_out: int
    """How many nodes are not in the picture."""


def graph_of(lineage: Mapping[str, Any]) -> Graph:
    """Return the picture of an answer about lineage. Edges with an end that is left out are left out."""
    by_kind: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for node in lineage["nodes"]:
        by_kind[node["kind"]].append(node)
    kinds = [kind for kind in (*KINDS, *sorted(by_kind.keys() - {*KINDS})) if by_kind.get(kind)]
    columns = {kind: number * (WIDTH + GAP) for number, kind in enumerate(kinds)}
    boxes = {
        node["id"]: Box(node, x, TOP + row * STEP)
        for kind, x in columns.items()
        for row, node in enumerate(
            sorted(by_kind[kind], key=lambda one: one["id"] not in lineage["found"])[:MOST]
        )
    }
    ends = ((boxes.get(edge["source"]), boxes.get(edge["target"])) for edge in lineage["edges"])
    return Graph(
        width=len(kinds) * (WIDTH + GAP),
        height=max((box.y for box in boxes.values()), default=0) + STEP,
        columns=tuple(columns.items()),
        boxes=tuple(boxes.values()),
        lines=tuple(_line(one, other) for one, other in ends if one is not None and other is not None),
        left_out=len({node["id"] for node in lineage["nodes"]}) - len(boxes),
    )


def _line(one: Box, other: Box) -> str:
    left, right = sorted((one, other), key=lambda box: box.x)
    x, y, beyond = left.x + WIDTH, left.y + HEIGHT // 2, right.y + HEIGHT // 2
    if left.x == right.x:
        return f"M{x} {y} C{x + GAP // 2} {y} {x + GAP // 2} {beyond} {x} {beyond}"
    return f"M{x} {y} C{x + GAP // 2} {y} {right.x - GAP // 2} {beyond} {right.x} {beyond}"
