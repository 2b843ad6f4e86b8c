"""Each reader's page leads where it says: the blocks below ``<!-- path -->`` run in a clean clone, in order.

The pages share one wheel, on which a tiny model stands in for those that the pages name. What each path took
is written to ``var/nightly/paths.json``; ``scripts/readme_figures.py`` writes that into the pages.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_client import Client
from tunewheel_demo.gauge import processor
from tunewheel_local.run_state import RunState
from tunewheel_testing.tiny import write_tiny_model
from tunewheel_testing.waiting import wait_for

from ..contract.snippets import ROOT, Block, blocks, commands
from ..integration.wheels import log_tails
from . import small_desk
from .test_walk import write_csv

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.nightly("paths")]

FIGURES = ROOT / "var/nightly/paths.json"
PROGRAMS = {"python": ("python", "path.py"), "js": ("node", "path.mjs"), "java": ("java", "Ticket.java")}
PATIENCE_SECONDS = small_desk.PATIENCE_SECONDS
URLS = {"http://127.0.0.1:8100": "gateway", "http://127.0.0.1:8101": "ingest"}


@dataclass
class Walker:
    """Somebody with a clean clone, who types what the pages say."""

    clone: Path
    env: dict[str, str]
    stands_for: dict[str, str] = field(default_factory=dict[str, str])
    """What is run instead of what a page says: another model, other ports."""

    @property
    def state(self) -> RunState:
        state = RunState.read(self.clone / "var/run.json")
        assert state is not None
        return state

    @property
    def client(self) -> Client:
        key = self.run(["tunewheel", "key", "show"]).strip()
        return Client(self.state.services["console"]["url"], key)

    def run(self, words: list[str], **options: Any) -> str:
        told = subprocess.run(
            words, cwd=self.clone, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=PATIENCE_SECONDS, **options,
        )  # fmt: skip
        assert told.returncode == 0, f"{words}\n{told.stdout}"
        return told.stdout

    def take(self, block: Block) -> tuple[int, str]:
        """Do what a block says; return the number of its commands, and their output."""
        code = block.code
        for shown, run in self.stands_for.items():
            code = code.replace(shown, run)
        if block.file:
            with (self.clone / block.file).open("a", encoding="utf-8") as file:
                file.write(f"\n\n{code}" if file.tell() else code)
            return 1, ""
        if block.language in PROGRAMS:
            program, name = PROGRAMS[block.language]
            (self.clone / "var" / name).write_text(code, "utf-8")
            return 1, self.run([program, f"var/{name}"])
        kept = self.clone / "var/environment"
        said = self.run(["bash", "-euo", "pipefail", "-c", f"{code}\nenv -0 >{kept}"])
        self.env = dict(pair.split("=", 1) for pair in kept.read_text("utf-8").split("\0") if pair)
        return len([*commands(block.code)]), said

    def walk(self, page: str) -> str:
        """Walk the page's path, keep what that took, and return what was printed."""
        path = [one for one in blocks(page, (self.clone / page).read_text("utf-8")) if one.on_path]
        assert path, f"{page} marks no path"
        began = time.monotonic()
        taken = [self.take(block) for block in path]
        kept: dict[str, Any] = json.loads(FIGURES.read_text("utf-8")) if FIGURES.is_file() else {}
        kept |= {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "paths": kept.get("paths", {}),
        }
        count, seconds = sum(count for count, _ in taken), time.monotonic() - began
        kept["paths"][page] = {"commands": count, "seconds": round(seconds)}
        FIGURES.parent.mkdir(parents=True, exist_ok=True)
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        return "".join(said for _, said in taken)


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walker]:
    root = tmp_path_factory.mktemp("paths")
    clone = root / "tunewheel"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(clone)], check=True)
    (clone / "var").mkdir()
    write_csv(clone / "questions.csv", ("question", "answer"))
    base = str(write_tiny_model(root / "base", context=2048))  # its context holds a ticket, byte by byte
    apart = ("TUNEWHEEL_", "PYTEST", "VIRTUAL_ENV", "MAKE", "MFLAGS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(apart)}
    env |= {
        f"GIT_{who}_{what}": "path@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    env |= {
        "PATH": f"{clone}/.venv/bin:{env['PATH']}",
        "XDG_CONFIG_HOME": str(root / "config"),
        "TUNEWHEEL_EVAL_REGRESSION_SET": str(small_desk.cut_regression_set(root / "published")),
    }
    walker = Walker(clone, env, {
        "tunewheel up --detach": f"tunewheel up --detach --auto-ports --base-model {base}",
        "Qwen/Qwen2.5-7B-Instruct": base,
    })  # fmt: skip
    try:
        yield walker
    finally:
        if (clone / "var/run.json").is_file():
            walker.run(["tunewheel", "down"])


def open_helpdesk(walker: Walker) -> None:
    """Do what whoever operates the wheel has done before the other readers come: the project helpdesk is
    declared, its first version waits for a review, and a question waits for an answer."""
    walker.stands_for |= {url: walker.state.services[name]["url"] for url, name in URLS.items()}
    spec = small_desk.spec(walker.stands_for["Qwen/Qwen2.5-7B-Instruct"]).model_dump(
        mode="json", exclude_unset=True
    )
    spec["review"] = {"required": True, "sample": 4}
    (walker.clone / "var/helpdesk.yaml").write_text(yaml.safe_dump(spec), "utf-8")
    tickets, _ = small_desk.lay_out(walker.clone / "var/helpdesk")
    walker.run(["tunewheel", "project", "declare", "var/helpdesk.yaml"])
    walker.run(["tunewheel", "publish", str(tickets), "--project", "helpdesk"])


def ask_experts(walker: Walker) -> None:
    """Ask for answers to what the applications asked, and wait for these and for the review."""
    with walker.client as wheel:
        wait_for(lambda: wheel.completions.list("helpdesk").items, "a completion")
        asked = [one.completion_id for one in wheel.completions.list("helpdesk").items]
        wheel.completions.label("helpdesk", asked)
        wait_for(lambda: wheel.labels.list("helpdesk").requests, "a request for labels")
        wait_for(lambda: wheel.reviews.list("helpdesk").reviews, "a review", patience=PATIENCE_SECONDS)


def it_is_committed(walker: Walker, said: str) -> None:
    assert " passed" in said
    assert "links_kept.py" in walker.run(["git", "show", "--stat"])


def there_is_a_verdict(walker: Walker, said: str) -> None:
    with walker.client as wheel:
        assert wheel.turns.show("questions", "latest").state == "ended"
        assert wheel.evaluations.show("questions", "latest").outcome in ("passed", "failed", "undecided")


def it_is_answered(walker: Walker, said: str) -> None:
    with walker.client as wheel:
        wait_for(lambda: len(wheel.completions.list("helpdesk").items) >= 2, "both completions")


def the_ticket_is_taken(walker: Walker, said: str) -> None:
    assert len(re.findall(r"accepted\W+1\b", said)) == 4, said


def one_is_answered_and_one_compared(walker: Walker, said: str) -> None:
    with walker.client as wheel:
        assert wheel.labels.show("helpdesk", "latest").answered == 1
        assert wheel.reviews.show("helpdesk", "latest").answered == 1


def the_alert_is_explained(walker: Walker, said: str) -> None:
    assert "**Do:**" in said
    assert (walker.clone / "var/chart/tunewheel/Chart.yaml").is_file()


def nothing(walker: Walker) -> None: ...


PATHS: dict[str, tuple[Callable[[Walker], None], Callable[[Walker, str], None]]] = {
    "CONTRIBUTING.md": (nothing, it_is_committed),
    "docs/for-ml-engineers.md": (nothing, there_is_a_verdict),
    "docs/for-applications.md": (open_helpdesk, it_is_answered),
    "docs/for-publishers.md": (nothing, the_ticket_is_taken),
    "docs/for-experts.md": (ask_experts, one_is_answered_and_one_compared),
    "docs/for-operators.md": (nothing, the_alert_is_explained),
}
"""By page, what others have done before, and what must hold after."""


@pytest.mark.parametrize("page", PATHS)
def test_a_reader_gets_to_where_the_page_leads(page: str, walker: Walker) -> None:
    before, holds = PATHS[page]
    try:
        before(walker)
        holds(walker, walker.walk(page))
    except BaseException as error:
        error.add_note(log_tails(walker.clone / "var"))
        raise
