"""TypeScript types that json-schema-to-typescript makes of the schemas: a program that compiles with them
publishes what today's readers take."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tunewheel_contracts.binding import STRUCTURED
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import BY_NAME, TOPICS

pytestmark = pytest.mark.nightly("clients")
ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / "var/node/node_modules"
PROGRAM = Path(__file__).with_name("publisher.ts").read_text("utf-8")
UPSTREAM = [spec.name for spec in TOPICS if spec.is_from_upstream]
STRICT = ("--strict", "--exactOptionalPropertyTypes", "--module", "nodenext", "--lib", "es2022,dom")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["node", *words], cwd=folder, capture_output=True, text=True)


def compiled(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    (folder / "publisher.ts").write_text(program, "utf-8")
    return run(folder, "node_modules/typescript/bin/tsc", *STRICT, "publisher.ts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stranger's folder: the generated types of what other systems may write."""
    if shutil.which("node") is None:
        pytest.skip("this machine has no node")
    if not (INSTALLED / "json-schema-to-typescript").is_dir():
        pytest.fail("the packages for node are not installed; run: make node-packages")
    folder = tmp_path_factory.mktemp("types")
    (folder / "node_modules").symlink_to(INSTALLED)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "schemas").mkdir()
    for name in UPSTREAM:
        shutil.copy(ROOT / f"contracts/schemas/{name}.json", folder / "schemas")
    tool = "node_modules/json-schema-to-typescript/dist/src/cli.js"
    made = run(folder, tool, "--input", "schemas", "--output", "types")
    assert made.returncode == 0, made.stderr
    return folder


def test_a_program_that_compiles_publishes_what_readers_take(folder: Path) -> None:
    done = compiled(folder, PROGRAM)
    assert done.returncode == 0, done.stdout
    lines = run(folder, "publisher.js").stdout.splitlines()
    assert {json.loads(line)["type"] for line in lines} == set(UPSTREAM)
    for line in lines:
        kind = BY_NAME[json.loads(line)["type"]].event
        event = Envelope.from_kafka(
            kind, line.encode(), {"content-type": STRUCTURED.encode()}, from_anybody=True
        )
        assert event.data.project == "helpdesk"


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('rating: "down"', 'rating: "bad"', "'\"bad\"' is not assignable"),
        ("input: ", "imput: ", "'imput' does not exist"),
        ('ticket_id: "T-1", ', "", "Property 'ticket_id' is missing"),
        ('role: "user"', 'role: "customer"', "'\"customer\"' is not assignable"),
    ],
)
def test_what_a_reader_would_refuse_does_not_compile(folder: Path, right: str, wrong: str, told: str) -> None:
    done = compiled(folder, PROGRAM.replace(right, wrong, 1))
    assert done.returncode != 0
    assert told in done.stdout
