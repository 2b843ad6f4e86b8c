"""Draws the lineage of a name for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import SecretStr
    from rich.tree import Tree
    from tunewheel_client import Client

SHOWN_RECORDS = 5
Answer = Mapping[str, Any]
"""The answer to ``GET /v1/projects/{project}/lineage/{name}``, described in the registry's OpenAPI page."""
Node = Mapping[str, Any]


def ask_lineage(
    client: Client, project: str, name: str, *, records: int = 100, secret: SecretStr | None = None
) -> Answer:
    """Return the causes and the results of ``name``. A source may be given by its own id. It is then looked
    up by its pseudonym in dataset versions, which is computed with ``secret``.

    Raises:
        NotFound: nothing in the project has that name.
    """
    from tunewheel_client import NotFound
    from tunewheel_contracts.pseudonyms import Pseudonyms

    try:
        return client.models.lineage(project, name, records=records)
    except NotFound as unknown:
        pseudonym = Pseudonyms(project, secret.get_secret_value() if secret else "").of("source", name)
        try:
            return client.models.lineage(project, pseudonym, records=records)
        except NotFound:
            raise unknown from None


def print_lineage(answer: Answer) -> None:
    """Print the drawing of a lineage."""
    from rich.console import Console

    Console(highlight=False).print(lineage_tree(answer))


def lineage_tree(answer: Answer) -> Tree:
    """Draw a lineage: the item, its causes and its results."""
    from rich.tree import Tree

    drawing = _Drawing(answer)
    tree = Tree(f"[bold]{drawing.escape(answer['asked'])}[/]")
    for start in answer["found"]:
        branch = tree if len(answer["found"]) == 1 else tree.add(start)
        branch.add(drawing.line(start))
        drawing.drawn.add(start)
        drawing.add(branch, "came from", start, drawing.origins)
        drawing.add(branch, "led to", start, drawing.results)
    for dataset, reason in answer.get("unreadable", {}).items():
        tree.add(f"[red]the records of {dataset} cannot be told: {drawing.escape(reason)}[/]")
    return tree


@dataclass
class _Drawing:
    answer: Answer
    nodes: dict[str, Node] = field(init=False)
    origins: dict[str, list[str]] = field(init=False)
    results: dict[str, list[str]] = field(init=False)
    drawn: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        self.nodes = {node["id"]: node for node in self.answer["nodes"]}
        self.origins, self.results = {}, {}
        for edge in self.answer["edges"]:
            self.origins.setdefault(edge["target"], []).append(edge["source"])
            self.results.setdefault(edge["source"], []).append(edge["target"])

    @staticmethod
    def escape(text: str) -> str:
        from rich.markup import escape

        return escape(text)

    def line(self, key: str) -> str:
        node = self.nodes[key]
        words = _WORDS.get(node["kind"], _facts)(node["facts"])
        at = f" [dim]{node['at'][:16].replace('T', ' ')}[/]" if node.get("at") else ""
        return f"[cyan]{node['kind']}[/] {self.escape(key)} {self.escape(words)}{at}"

    def add(self, branch: Tree, title: str, key: str, step: Mapping[str, Sequence[str]]) -> None:
        """Add the nodes that ``step`` reaches from ``key``, each node once."""
        if any(other not in self.drawn for other in step.get(key, ())):
            self._grow(branch.add(f"[dim]{title}[/]"), key, step)

    def _grow(self, branch: Tree, key: str, step: Mapping[str, Sequence[str]]) -> None:
        new = [other for other in dict.fromkeys(step.get(key, ())) if other not in self.drawn]
        self.drawn.update(new)
        records = [other for other in new if self.nodes[other]["kind"] == "record"]
        for other in sorted(new, key=lambda name: self.nodes[name].get("at") or ""):
            if other not in records:
                self._grow(branch.add(self.line(other)), other, step)
        if records:
            self._add_records(branch, records)

    def _add_records(self, branch: Tree, records: Sequence[str]) -> None:
        counts = self.answer["records"]
        kinds = ", ".join(f"{number} {kind}s" for kind, number in counts["by_kind"].items())
        folder = branch.add(
            f"made of {kinds or 'no records'}; {counts['left_out']} records left out by curation"
        )
        for record in records[:SHOWN_RECORDS]:
            folder.add(self.line(record))
        more = counts["used"] - min(len(records), SHOWN_RECORDS)
        if more > 0:
            folder.add(f"[dim]… and {more} more[/]")


def _record(facts: Answer) -> str:
    erased = f", erased by {facts['erased_by']}" if "erased_by" in facts else ""
    return f"{facts.get('kind', '')} {facts.get('source_id', '')}{erased}".strip()


def _dataset(facts: Answer) -> str:
    counts = facts["counts"]
    return (
        f"{counts['examples']} examples of {counts['records']} records ({counts['train']} to train, "
        f"{counts['holdout']} held out), built by {facts['reason']}"
        + (", preliminary" if facts.get("preliminary") else "")
    )


def _run(facts: Answer) -> str:
    if facts["state"] == "completed":
        took = f"{facts['tokens']} tokens in {facts['seconds']:.0f} s"
        return f"{facts['method']}, loss {facts['loss']:.3f}, {took}"
    return f"{facts['state']}{': ' + facts['reason'] if 'reason' in facts else ''}"


def _evaluation(facts: Answer) -> str:
    champion = facts["contestants"].get("champion")
    against = f" against {champion}" if champion else ""
    reviewed = f", reviewed by {facts['reviewed_by']}" if "reviewed_by" in facts else ""
    reasons = f": {'; '.join(facts['reasons'])}" if facts.get("reasons") else ""
    return f"{facts['outcome']}{against}{reviewed}{reasons}"


def _review(facts: Answer) -> str:
    said: list[str] = []
    for name, what in facts.get("reviewers", {}).items():
        by = f" ({what['by']})" if "by" in what else ""
        items = f" {what['items']} items" if "items" in what else ""
        said.append(f"{name}{by}{items}{' ' + what['verdict'] if 'verdict' in what else ''}")
    return "; ".join(said) or "nobody yet"


def _step(facts: Answer) -> str:
    if "pinned" in facts:
        return f"{facts['model']}: {'pinned' if facts['pinned'] else 'unpinned'}, {facts['reason']}"
    return f"{facts['model']}: {facts['from']} → {facts['to']}, {facts['reason']}"


def _command(facts: Answer) -> str:
    by = facts.get("by") or facts.get("requested_by")
    said = f"{facts['action']}{f' by {by}' if by else ''}"
    refused = f", refused: {facts['refused']}" if "refused" in facts else ""
    return f"{said}, {facts['reason']}{refused}" if "reason" in facts else f"{said}{refused}"


def _rollout(facts: Answer) -> str:
    return f"{facts['stage']} {facts['verdict']} after {facts['requests']} requests"


def _model(facts: Answer) -> str:
    return f"{facts['kind']} on {facts['base']['name']}"


def _facts(facts: Answer) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


_WORDS: dict[str, Callable[[Answer], str]] = {
    "record": _record, "dataset": _dataset, "run": _run, "model": _model, "evaluation": _evaluation,
    "review": _review, "step": _step, "command": _command, "rollout": _rollout,
}  # fmt: skip
