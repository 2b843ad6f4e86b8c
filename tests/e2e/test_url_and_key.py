"""Every command that is about the work with a wheel needs the wheel's URL and a key, and nothing else.

A wheel runs, on which a model was trained. The commands run in a folder elsewhere, as on a laptop: the Kafka
that their environment names does not answer, and the object store that it names is none.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tunewheel_cli.table import BY_WORDS
from tunewheel_local.kafka.ports import free_port
from tunewheel_testing.waiting import PATIENCE_SECONDS

from ..integration.test_up import Shell
from ..integration.wheels import log_tails
from .test_walk import shell, walk  # noqa: F401 - a fixture

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.nightly("matrices")]

ON_THE_MACHINE = {"up", "down", "doctor", "demo"} | {one for one in BY_WORDS if one.startswith("admin ")}
REFUSED = 1
"""The exit code where a service refuses: it was asked, and answered."""
STEPS = (
    ("login {url} --as wheel -p tickets", 0),
    ("login", 0),
    ("context list", 0),
    ("context use wheel -p tickets", 0),
    ("context show", 0),
    ("init mine.csv -o drafted.yaml --base-model {base} --force", 0),
    ("plan", 0),
    ("plan --dataset latest -p tickets", 0),
    ("project list", 0),
    ("project show", 0),
    ("project declare project.yaml", 0),
    ("publish notes -p tickets", 0),
    ("publish mine.csv -p tickets --kind ticket --map question=body --map id=ticket_id", 0),
    ("status", 0),
    ("ask 'The battery of my bike does not fill.'", 0),
    ("dataset list", 0),
    ("dataset show latest", 0),
    ("dataset diff latest latest", 0),
    ("dataset export latest", 0),
    ("run list", 0),
    ("run show latest", 0),
    ("run scorecard latest --html card.html", 0),
    ("run export latest exported", 0),
    ("run pause latest", REFUSED),
    ("run cancel latest", REFUSED),
    ("run resume latest", REFUSED),
    ("run evaluate latest --timeout 0", 0),
    ("model list", 0),
    ("model show champion", 0),
    ("model card champion", 0),
    ("model compare champion champion", 0),
    ("model pin champion --reason r", 0),
    ("model unpin champion --reason r", 0),
    ("model stop --to base --reason r", 0),
    ("model unpin base --reason r", 0),
    ("model rollback {model} --reason r", 0),
    ("model promote {model} --reason r --force", 0),
    ("model retire {model} --reason r", 0),
    ("model reject {model} --reason r", 0),
    ("turn list", 0),
    ("turn show {turn}", 0),
    ("turn wait {turn}", 0),
    ("lineage {model}", 0),
    ("alarm list", 0),
    ("alarm show none", REFUSED),
    ("label list", 0),
    ("label show none", REFUSED),
    ("label answer none 1 yes", REFUSED),
    ("label export none", REFUSED),
    ("label import annotated.json", REFUSED),
    ("detector list", 0),
    ("review list", 0),
    ("review show none", REFUSED),
    ("review answer none 1 left", REFUSED),
    ("review submit none approve", REFUSED),
    ("dead-letter list", 0),
    ("dataset build --timeout 600", 0),
    ("withdraw guide.md", 0),
    ("forget --customer nobody --requested-by me --timeout 0", 0),
    ("key list", 0),
    ("key add reader --role viewer", 0),
    ("key rotate reader", 0),
    ("key revoke reader", 0),
    ("key show", 0),
    ("project remove tickets --yes", 0),
)
"""The commands in their order, each with its exit code."""


@pytest.fixture
def laptop(tmp_path: Path) -> Shell:
    """A person's folder, with some files, on a machine that reaches no Kafka and no store."""
    folder = tmp_path / "laptop"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "guide.md").write_text("# Guide\n\nCharge the battery over night.\n")
    annotated = {"data": {"request_id": "none", "number": 1}, "annotations": [{"result": [{}]}]}
    (folder / "annotated.json").write_text(json.dumps([annotated]))
    rows = [f"t-{number},Where is my order {number}?,team-{number % 2}" for number in range(40)]
    (folder / "mine.csv").write_text("\n".join(["id,question,team", *rows]) + "\n")
    away = {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "TUNEWHEEL_STORE_URL": "nonsense://store",
        "XDG_CONFIG_HOME": str(folder / "config"),
    }
    found = Shell(folder / "var", cwd=folder, **away)
    del found.env["TUNEWHEEL_VAR"]
    return found


def test_every_command_works_by_url_and_key_where_no_kafka_and_no_store_answers(
    shell: Shell,  # noqa: F811
    laptop: Shell,
    tmp_path: Path,
) -> None:
    turn, _ = walk(shell, tmp_path)
    assert laptop.cwd is not None
    (laptop.cwd / "project.yaml").write_bytes((tmp_path / "project.yaml").read_bytes())
    names = {"url": shell.state.services["console"]["url"], "model": turn["model_id"],
             "turn": turn["turn_id"], "base": tmp_path / "base"}  # fmt: skip
    laptop.env["TUNEWHEEL_API_KEY"] = shell.run("key", "show")["key"]
    begin, *steps = [(shlex.split(line.format(**names)), code) for line, code in STEPS]
    laptop.run(*begin[0])
    watch = [sys.executable, "-m", "tunewheel_cli.main", "watch", "--until", "model.commanded", "--json"]
    with subprocess.Popen(watch, stdout=subprocess.PIPE, env=laptop.env, cwd=laptop.cwd) as watching:
        try:
            wrong = [said for words, code in steps if (said := complaint(laptop, words, code))]
            assert not wrong, "\n".join(wrong)
            last = json.loads((watching.communicate(timeout=PATIENCE_SECONDS)[0]).splitlines()[-1])
            assert (watching.returncode, last["type"]) == (0, "model.commanded")
        except BaseException as error:
            watching.kill()
            error.add_note(log_tails(shell.var))
            raise
    ran = {command_of(words) for words, _ in (begin, *steps)} | {"watch"}
    assert ran == BY_WORDS.keys() - ON_THE_MACHINE


def complaint(laptop: Shell, words: list[str], code: int) -> str | None:
    """Run a command; return what is wrong with its answer."""
    try:
        told = laptop.run(*words, code=code)
    except AssertionError as error:
        return f"{shlex.join(words)}: {error}"
    kind = told["kind"] if code == REFUSED else None
    return f"{shlex.join(words)}: {told}" if kind not in (None, "NotFound", "Conflict", "Refused") else None


def command_of(words: list[str]) -> str:
    return next(" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in BY_WORDS)
