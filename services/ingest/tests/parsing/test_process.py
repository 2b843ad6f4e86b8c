"""Reading in a process of its own: a document that takes too much is refused, and the next one is read."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import xlsxwriter
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.document import XLSX
from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable
from tunewheel_ingest.parsing.limits import Limits
from tunewheel_ingest.parsing.process import ParserProcess
from tunewheel_ingest.parsing.worker import Order, outcome_of
from tunewheel_testing.waiting import until

from .pdfs import MANUAL, bomb_pdf, encrypted_pdf, make_pdf

LIMITS = Limits(memory_bytes=1 << 30, cpu_seconds=60, wall_seconds=300, output_bytes=16 << 20)


@pytest.fixture
async def parser() -> AsyncIterator[ParserProcess]:
    parser = ParserProcess(LIMITS)
    yield parser
    await parser.close()


async def test_documents_of_all_kinds_one_after_the_other(parser: ParserProcess, tmp_path: Path) -> None:
    files = {
        "a.pdf": (make_pdf(*MANUAL), "application/pdf"),
        "a.html": (b"<h1>T</h1><p>text", "text/html"),
        "a.py": (b"def f(): pass", "text/x-python"),
        "a.txt": ("caf\u00e9".encode("utf-16"), "text/plain"),
    }
    for name, (data, media_type) in files.items():
        (tmp_path / name).write_bytes(data)
        parsed = await parser.parse(tmp_path / name, media_type=media_type, name=name)
        assert parsed.sections, name


async def test_a_sheet_with_two_cells_far_apart_is_refused_for_its_memory(
    parser: ParserProcess, tmp_path: Path
) -> None:
    book = xlsxwriter.Workbook(str(tmp_path / "a.xlsx"))
    sheet = book.add_worksheet()
    sheet.write(0, 0, "a")
    sheet.write(1_048_575, 16_383, "b")
    book.close()
    with pytest.raises(Unreadable, match="MiB of memory"):
        await parser.parse(tmp_path / "a.xlsx", media_type=XLSX, name="a.xlsx")


async def test_a_refusal_travels_and_the_next_document_is_read(parser: ParserProcess, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.pdf", tmp_path / "good.html"
    bad.write_bytes(encrypted_pdf())
    good.write_bytes(b"<p>text")
    with pytest.raises(Unreadable, match="is encrypted"):
        await parser.parse(bad, media_type="application/pdf", name="bad.pdf")
    assert (await parser.parse(good, media_type="text/html", name="good.html")).markdown == "text"


@pytest.mark.parametrize("name", ["long.txt", "long.md"])
async def test_a_section_longer_than_the_contract_allows_is_refused_with_advice(
    parser: ParserProcess, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("word " * 300_000)
    media_type = "text/plain" if name.endswith("txt") else "text/markdown"
    with pytest.raises(Unreadable, match=r"1,?000,?000 .*divide it by headings"):
        await parser.parse(tmp_path / name, media_type=media_type, name=name)


async def test_bombs_are_refused_in_bounded_memory_and_the_next_document_is_read(tmp_path: Path) -> None:
    """Gigabytes out of two megabytes, and out of some hundred bytes."""
    parser = ParserProcess(LIMITS.model_copy(update={"memory_bytes": 512 << 20}))
    good = tmp_path / "good.html"
    good.write_bytes(b"<p>text")
    try:
        for nested, size in ((1, 3 << 20), (3, 4 << 10)):
            data = bomb_pdf(mebibytes=2048, nested=nested)
            assert len(data) < size
            (tmp_path / "bomb.pdf").write_bytes(data)
            with pytest.raises(
                Unreadable, match="takes over 512 MiB of memory to read; shorten it, or raise"
            ):
                await parser.parse(tmp_path / "bomb.pdf", media_type="application/pdf", name="bomb.pdf")
        assert (await parser.parse(good, media_type="text/html", name="good.html")).markdown == "text"
        assert parser._process is not None
        assert psutil.Process(parser._process.pid).memory_info().rss < 256 << 20
    finally:
        await parser.close()


async def test_a_lost_process_is_transient_and_replaced(parser: ParserProcess, tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    file.write_bytes(b"<p>text")
    await parser.parse(file, media_type="text/html", name="a.html")
    assert parser._process is not None
    os.kill(parser._process.pid, signal.SIGKILL)
    with pytest.raises(TransientError):
        await parser.parse(file, media_type="text/html", name="a.html")
    assert (await parser.parse(file, media_type="text/html", name="a.html")).markdown == "text"


async def test_a_cancelled_reading_leaves_nothing_behind(parser: ParserProcess, tmp_path: Path) -> None:
    """The answer to what was cancelled must not be taken for the answer to the next."""
    first, second = tmp_path / "a.pdf", tmp_path / "b.html"
    first.write_bytes(make_pdf(*MANUAL))
    second.write_bytes(b"<p>second")
    reading = asyncio.create_task(parser.parse(first, media_type="application/pdf", name="a.pdf"))
    await until(lambda: parser._process is not None)
    process = parser._process
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await process.wait()
    assert (await parser.parse(second, media_type="text/html", name="b.html")).markdown == "second"


async def test_closing_ends_the_process(parser: ParserProcess, tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    file.write_bytes(b"<p>text")
    await parser.parse(file, media_type="text/html", name="a.html")
    process = parser._process
    assert process is not None
    await parser.close()
    assert process.returncode == -signal.SIGKILL


PARENT = """
import asyncio, sys
from pathlib import Path
from tunewheel_ingest.parsing.limits import Limits
from tunewheel_ingest.parsing.process import ParserProcess

async def main():
    limits = Limits(memory_bytes=1 << 30, cpu_seconds=60, wall_seconds=300, output_bytes=16 << 20)
    parser = ParserProcess(limits)
    await parser.parse(Path(sys.argv[1]), media_type="text/html", name="a.html")
    print(parser._process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_the_process_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "a.html"
    file.write_bytes(b"<p>text")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(file)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    reader = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    patience = time.monotonic() + 60
    while _runs(reader):
        assert time.monotonic() < patience
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    """Whether it runs; one that ended stays a zombie until who adopted it takes it away."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def spin(*_: object) -> ParsedDocument:
    while True:
        pass


def sleep(*_: object) -> ParsedDocument:
    time.sleep(600)
    raise AssertionError


def hoard(*_: object) -> ParsedDocument:
    return ParsedDocument(markdown=str(bytearray(4 << 30)[:1]))


def ramble(*_: object) -> ParsedDocument:
    return ParsedDocument(markdown="x" * (2 << 20))


def crash(*_: object) -> ParsedDocument:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def fail(*_: object) -> ParsedDocument:
    raise ValueError("a mistake of ours")


@pytest.mark.parametrize(
    ("parse", "words"),
    [
        (spin, "over 1 s of processor time to read; shorten it, or raise TUNEWHEEL_PARSE_CPU_SECONDS"),
        (sleep, "over 2 s to read; shorten it, or raise TUNEWHEEL_PARSE_WALL_SECONDS"),
        (hoard, "over 1024 MiB of memory to read; shorten it, or raise TUNEWHEEL_PARSE_MEMORY_MB"),
        (ramble, "makes over 1 MiB of text"),
        (crash, "its reader was ended by signal 9"),
        (fail, "its reader failed (13)"),
    ],
    ids=["processor", "wall", "memory", "output", "killed", "mistake"],
)
def test_what_takes_too_much_is_ended_and_named(
    tmp_path: Path, parse: Callable[..., ParsedDocument], words: str
) -> None:
    wall = 2 if parse is sleep else 60
    limits = Limits(memory_bytes=1 << 30, cpu_seconds=1, wall_seconds=wall, output_bytes=1 << 20)
    order = Order(
        source=str(tmp_path / "a"),
        target=str(tmp_path / "b"),
        media_type="text/plain",
        name="a",
        limits=limits,
    )
    outcome = outcome_of(order, parse)
    assert outcome.status == "refused"
    assert words in outcome.reason
