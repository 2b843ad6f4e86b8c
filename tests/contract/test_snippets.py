"""Every block of code on every page is run by a test, or checked here by its language, or says why not."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_serve_gateway.openapi import document

from . import snippets
from .identity_samples import build
from .snippets import CHECKS, ROOT, Block, blocks, pattern

RUN = {
    ("README.md", "python"): "services/serve-gateway/tests/test_client_pages.py",
    ("client/README.md", "python"): "services/serve-gateway/tests/test_client_pages.py",
    ("docs/serving.md", "python"): "services/serve-gateway/tests/test_serving_page.py",
    ("docs/serving.md", "js"): "services/serve-gateway/tests/test_serving_page.py",
    ("docs/serving.md", "bash"): "services/serve-gateway/tests/test_serving_page.py",
    ("docs/for-publishers.md", "python"): "services/ingest/tests/door/test_publishers.py",
    ("docs/for-publishers.md", "js"): "services/ingest/tests/door/test_publishers.py",
    ("docs/for-publishers.md", "java"): "services/ingest/tests/door/test_publishers.py",
    ("docs/for-publishers.md", "bash"): "services/ingest/tests/door/test_publishers.py",
    ("docs/for-publishers.md", "properties"): "tests/producers/test_producers.py",
    ("docs/connect.md", "properties"): "tests/producers/test_producers.py",
    ("CONTRIBUTING.md", "python"): "tests/contract/test_contributing.py",
    ("CONTRIBUTING.md", "json"): "tests/contract/test_contributing.py",
    ("CONTRIBUTING.md", "yaml"): "tests/contract/test_contributing.py",
}
"""By page and language, the test that runs the blocks."""
MOST_UNRUN = 8


def every_block() -> list[Block]:
    paths = [path for pattern in snippets.PAGES for path in sorted(ROOT.glob(pattern))]
    named = [path.relative_to(ROOT).as_posix() for path in paths]
    return [block for name in named for block in blocks(name, (ROOT / name).read_text("utf-8"))]


BLOCKS = every_block()


@pytest.fixture(scope="module", autouse=True)
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tell the checks which addresses the services have."""
    specs: list[Any] = [json.loads(document())]
    for name in ("console", "ingest", "registry"):
        app: Any = build(name, tmp_path_factory.mktemp(name), identity="open").doors.mounted
        specs.append(app.openapi())
    told = itertools.chain.from_iterable(spec["paths"].items() for spec in specs)
    snippets.ADDRESSES[:] = [(m.upper(), pattern(path)) for path, methods in told for m in methods]
    yield
    snippets.ADDRESSES.clear()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_is_run_by_a_test_or_holds_what_its_language_asks(block: Block) -> None:
    if (block.page, block.language) in RUN:
        assert Path(block.page).name in (ROOT / RUN[block.page, block.language]).read_text("utf-8")
        return
    assert block.language in CHECKS, f"{block.place}: no check for the language {block.language}"
    if block.language == "js" and shutil.which("node") is None:
        pytest.skip("this machine has no node")
    CHECKS[block.language](block)


def test_hardly_a_block_is_left_unrun_and_each_such_block_says_why() -> None:
    assert len(BLOCKS) > 120
    assert Counter(block.language for block in BLOCKS)["bash"] > 30
    unrun = [block for block in BLOCKS if block.reason]
    assert len(unrun) <= MOST_UNRUN
    assert all(len(block.reason.split()) >= 4 for block in unrun)


FAULTY = {
    "an unknown option": ("bash", "tunewheel publish a.csv --projekt desk"),
    "an option without its value": ("bash", "tunewheel publish a.csv --project"),
    "a choice that is none": ("bash", "tunewheel publish a.csv --project p --kind tickte"),
    "an argument too much": ("bash", "tunewheel down now"),
    "a missing argument": ("bash", "tunewheel project declare"),
    "an unknown command": ("console", "$ tunewheel projekt list"),
    "a command in a substitution": ("bash", 'export KEY="$(tunewheel kye show)"'),
    "a command behind a pipe": ("bash", "echo x | tunewheel ask --modle x"),
    "a command in a loop": ("bash", "for one in a b; do tunewheel ask --modle $one; done"),
    "a make target": ("bash", "make tset"),
    "a variable of make": ("bash", "make bench NAM=ingest"),
    "an address": ("bash", "curl http://localhost:8101/v1/tikets --json '{}'"),
    "a method": ("bash", "curl -X DELETE http://localhost:8101/v1/tickets"),
    "a service of compose": ("bash", "docker compose run --rm clii status"),
    "a Dockerfile": ("bash", "docker build -f deploy/Dockerfile ."),
    "a quote that never ends": ("bash", "tunewheel ask 'what"),
    "a program that nothing checks": ("bash", "terraform apply"),
    "a service's program": ("bash", "tunewheel-ingset"),
    "a command among output": ("text", "tunewheel status"),
    "a field of a spec": ("yaml", "train: {methd: lora}"),
    "a value of a spec": ("yaml", "train: {method: lorra}"),
    "a value of the chart": ("yaml", "image: {repositry: x}"),
    "a mapping": ("yaml", "kind: ticket\nmap: {ticket_id: 'a ='}"),
    "Python": ("python", "print('a"),
    "JSON": ("json", "{'a': 1}"),
}


@pytest.mark.parametrize(("language", "code"), FAULTY.values(), ids=FAULTY.keys())
def test_a_faulty_block_is_found(language: str, code: str) -> None:
    with pytest.raises((snippets.Faulty, InvalidSpec, ValueError, SyntaxError)):
        CHECKS[language](Block("page.md", 1, language, f"{code}\n", ""))
