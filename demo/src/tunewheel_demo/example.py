"""The bundled example's files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec

IN_CHECKOUT = Path("examples/helpdesk")
PACKAGE = "tunewheel_example"
"""The package in which the distribution ``tunewheel`` installs the example's folder."""


def bundled() -> Path:
    """Return the bundled example's folder: in the checkout that runs this, else the installed one."""
    installed = None if IN_CHECKOUT.is_dir() else find_spec(PACKAGE)
    places = installed.submodule_search_locations if installed is not None else None
    return Path(places[0]) / IN_CHECKOUT.name if places else IN_CHECKOUT


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket: a customer's question and an expert's answer."""

    ticket_id: str
    question: str
    answer: Any
    expert: str
    customer: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A folder such as ``examples/helpdesk``."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> Example:
        """Raise ``InvalidSpec`` unless ``root`` holds an example."""
        if not (root / "project.yaml").is_file():
            raise InvalidSpec(
                field="(example)", reason=f"{root} holds no project.yaml; name an example folder"
            )
        return cls(root)

    @property
    def spec(self) -> ProjectSpec:
        return parse_spec((self.root / "project.yaml").read_text("utf-8"))

    @property
    def tickets(self) -> Path:
        return self.root / "tickets.jsonl"

    @property
    def sops(self) -> Path:
        return self.root / "sops"

    @property
    def second_sops(self) -> Path:
        return self.root / "sops_second"

    def first_wave(self) -> list[Ticket]:
        """Return the tickets of the first wave that an expert answered in the task's form."""
        field = self.spec.task.label_field or ""
        answered = (
            ticket for ticket in map(_ticket, _lines(self.tickets)) if isinstance(ticket.answer, dict)
        )
        return [ticket for ticket in answered if field in ticket.answer]

    def second_wave(self) -> list[Ticket]:
        """Return the tickets of the second wave."""
        return [_ticket(raw) for raw in _lines(self.root / "second_wave.jsonl")]

    def third_wave(self) -> list[Ticket]:
        """Return tickets on the subject of the second wave that are not trained on. They are asked
        afterwards."""
        return [_ticket(raw) for raw in _lines(self.root / "third_wave.jsonl")]

    def questions(self, *, second: bool = False) -> list[str]:
        name = "questions_second.jsonl" if second else "questions.jsonl"
        return [raw["question"] for raw in _lines(self.root / name)]


def _ticket(raw: dict[str, Any]) -> Ticket:
    return Ticket(
        ticket_id=raw["ticket_id"],
        question=f"{raw['subject']}\n\n{raw['body']}" if raw.get("subject") else raw["body"],
        answer=raw.get("answer"),
        expert=raw.get("validated_by", "expert"),
        customer=raw.get("customer"),
    )


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
