"""The file of completions: what a search finds, and that no byte of a deleted completion is left."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tunewheel_console.completion_copy import CompletionCopy
from tunewheel_console.completion_search import Wanted
from tunewheel_console.completions import Completions, Kept
from tunewheel_console.settings import Settings
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_runtime.deadletter import Position

START = datetime(2026, 1, 1, tzinfo=UTC)
TASK = TaskSpec(
    system_prompt="Answer.", label_field="category",
    output_schema={"type": "object", "properties": {"category": {"type": "string"}}},
)  # fmt: skip
PLAIN = TaskSpec.model_validate(
    {"system_prompt": "Answer.", "output_rules": ({"rule": "allowed_values", "values": ("a", "b")},)}
)
Add = Callable[..., None]


@pytest.fixture
def add(completions: Completions) -> Add:
    """Return a function that adds the ``n``-th completion, ``n`` seconds after ``START``."""

    def add(n: int, question: str = "Does it ring?", answer: str = "It rings.", **changes: Any) -> None:
        at = START + timedelta(seconds=n)
        system = {"role": "system", "content": "Be polite to everybody."}
        told = {
            "project": "desk", "completion_id": f"c-{n:04}", "model_id": "desk-1", "role": "production",
            "messages": (system, {"role": "user", "content": question}), "output": answer,
            "finish_reason": "stop", "completed_at": at, "latency_seconds": n / 10,
        }  # fmt: skip
        data = InferenceCompleted.model_validate(told | changes)
        completions.add([Kept(data, Position("inference.completed", n % 3, n))], {n % 3: (n + 1, f"e-{n}")})

    return add


def found(completions: Completions, project: str = "desk", **wanted: Any) -> list[str]:
    rows, total = completions.find(project, Wanted(**wanted), TASK, limit=1_000, after=None)
    assert len(rows) == total
    return [row.completion_id for row in rows]


def stored(folder: Path) -> bytes:
    """Return all bytes on the disk, including those of the write-ahead log."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.endswith("-wal") for path in files)
    return b"".join(path.read_bytes() for path in files)


def test_a_completion_is_found_by_words_of_question_and_answer_together(completions: Completions, add: Add):
    add(1, "My solar panel hums at night", "Tighten the screws.")
    add(2, "My solar panel is dirty", "Wash it with water, näive Çelik.")
    add(3, "The bell rings", "A bell\nrings twice.")
    assert found(completions) == ["c-0003", "c-0002", "c-0001"]
    assert found(completions, words="solar") == ["c-0002", "c-0001"]
    assert found(completions, words="SOLAR screw") == ["c-0001"], "the beginning of a word, in the answer"
    assert found(completions, words='"panel is"') == ["c-0002"]
    assert found(completions, words='"is panel"') == []
    assert found(completions, words="naive celik") == ["c-0002"], "without accents"
    assert found(completions, words="rings") == ["c-0003"], "also after a line break"
    assert found(completions, words="polite") == [], "the system prompt is no question"
    assert found(completions, words="content role") == [], "nor are names of fields"


@pytest.mark.parametrize(
    "words", ['"', "'", "-", "*", "(", "AND", "OR NOT", "answer:", "a\0b", "^x", "NEAR(a b)", '""', "_", "%"]
)
def test_no_text_is_a_fault_of_the_search(completions: Completions, add: Add, words: str):
    add(1)
    found(completions, words=words)


def test_filters_hold_together(completions: Completions, add: Add):
    add(1, answer='{"category": "bell"}', format_valid=True, client="web")
    add(2, answer='{"category": "bells"}', format_valid=False, violations=("output_schema",), client="app")
    add(3, answer="bell", format_valid=False, violations=("empty",), role="canary", model_id="desk-2")
    add(4, answer='{"category": "bell"}', project="shop")
    assert found(completions, form="valid") == ["c-0001"]
    assert found(completions, form="invalid") == ["c-0003", "c-0002"]
    assert found(completions, form="output_schema") == ["c-0002"]
    assert found(completions, form="unknown") == []
    assert found(completions, label="bell") == ["c-0001"], "neither a longer label nor an answer without one"
    assert found(completions, role="canary") == found(completions, model_id="desk-2") == ["c-0003"]
    assert found(completions, client="web", words="bell") == ["c-0001"]
    assert found(completions, seconds=0.2) == ["c-0003", "c-0002"]
    assert found(completions, since=START + timedelta(seconds=3)) == ["c-0003"]
    assert found(completions, "shop") == ["c-0004"]


@pytest.mark.parametrize("hours", [-11, 0, 5.5])
def test_a_moment_counts_whatever_its_time_zone(completions: Completions, add: Add, hours: float):
    for n in range(4):
        add(n)
    zone = timezone(timedelta(hours=hours))
    since = (START + timedelta(seconds=2)).astimezone(zone)
    assert found(completions, since=since) == ["c-0003", "c-0002"]
    rows, _ = completions.find("desk", Wanted(), None, limit=9, after=(since, "c-0002"))
    assert [row.completion_id for row in rows] == ["c-0001", "c-0000"]


@pytest.mark.parametrize("label", ["wíndow", 'a "b"', "x\\y", "+", "1", "true"])
def test_a_label_of_any_spelling_is_found(completions: Completions, add: Add, label: str):
    import json

    add(1, answer=json.dumps({"category": label}))
    add(2, answer=json.dumps({"category": label}, ensure_ascii=False))
    add(3, answer=json.dumps({"category": "other"}))
    assert found(completions, label=label) == ["c-0002", "c-0001"]
    rows, _ = completions.find("desk", Wanted(label=label), PLAIN, limit=9, after=None)
    assert rows == [], "the whole answer is the label of another task"
    add(4, answer=f" {label}\n")
    add(5, answer=label, project="shop")
    rows, _ = completions.find("desk", Wanted(label=label), PLAIN, limit=9, after=None)
    assert [row.completion_id for row in rows] == ["c-0004"]
    free = TaskSpec(system_prompt="Answer.")
    assert completions.find("desk", Wanted(label=label), free, limit=9, after=None) == ([], 0)
    assert completions.find("desk", Wanted(label=label), None, limit=9, after=None) == ([], 0)


def test_a_page_begins_where_the_one_before_it_ended(completions: Completions, add: Add):
    for n in range(5):
        add(n, completed_at=START)  # at the same moment: the id decides
    first, total = completions.find("desk", Wanted(words="ring"), None, limit=2, after=None)
    assert ([one.completion_id for one in first], total) == (["c-0004", "c-0003"], 5)
    add(9, completed_at=START + timedelta(seconds=9))
    after = first[-1].completed_at, first[-1].completion_id
    more, _ = completions.find("desk", Wanted(words="ring"), None, limit=2, after=after)
    assert [one.completion_id for one in more] == ["c-0002", "c-0001"]


def test_a_completion_that_comes_again_is_one(completions: Completions, add: Add):
    add(1, "Once")
    add(1, "Once")
    assert found(completions, words="once") == ["c-0001"]
    assert completions.reached() == {1: (2, "e-1")}
    assert completions.places("desk", ["c-0001", "c-7"]) == {"c-0001": (1, 1)}


@pytest.mark.parametrize(
    "subject", [{"customer": "kim"}, {"source_id": "c-0001"}], ids=["customer", "completion"]
)
def test_what_is_erased_is_gone_from_rows_index_and_bytes(
    completions: Completions, add: Add, tmp_path: Path, subject: dict[str, str]
):
    for n in range(10, 400):
        add(n, f"Question {n} about zebras", "An answer " * 40)
    add(1, "zyxwvut asked the wardrobe " * 200, "quokkanaut", customer="kim")
    add(2, "zyxwvut asked the wardrobe", "quokkanaut", shadow_of="c-0001", role="shadow", customer="kim")
    add(4, "zyxwvut asked the wardrobe", "", answered_by="c-0001", customer="kim")
    add(3, "The third is not hers", customer="kimberley", answered_by="c-0399")
    before = stored(tmp_path)
    assert b"zyxwvut" in before, "else nothing would be shown by its absence"
    erasure = Erasure(project="desk", until=START + timedelta(seconds=4), **subject)
    assert completions.erase([erasure]) == 3
    assert completions.erase([erasure]) == 0
    after = stored(tmp_path)
    for text in (b"zyxwvut", b"quokkanaut", b"yxwvut", b"uokkanaut"):
        assert text not in after
    assert found(completions, words="zyxwvut") == found(completions, words="quokkanaut") == []
    assert found(completions, words="third") == ["c-0003"]
    assert len(found(completions, words="zebras")) == 390


def test_an_erasure_takes_nothing_later_and_nothing_of_another_project(completions: Completions, add: Add):
    add(1, customer="kim")
    add(5, customer="kim")
    add(2, customer="kim", project="shop")
    assert (
        completions.erase([Erasure(project="desk", customer="kim", until=START + timedelta(seconds=4))]) == 1
    )
    assert found(completions) == ["c-0005"]
    assert found(completions, "shop") == ["c-0002"]


def test_the_oldest_leave_by_age_and_by_number_of_each_project(
    completions: Completions, add: Add, tmp_path: Path
):
    for n in range(6):
        add(n, f"oldtimer{n}")
    add(7, "alone", project="shop")
    assert completions.trim(most=3, before=START + timedelta(seconds=1)) == 3
    assert found(completions) == ["c-0005", "c-0004", "c-0003"]
    assert found(completions, "shop") == ["c-0007"]
    assert completions.trim(most=3, before=START + timedelta(seconds=5)) == 2
    assert found(completions) == ["c-0005"]
    assert b"oldtimer4" not in stored(tmp_path)
    assert b"oldtimer5" in stored(tmp_path)


def test_a_search_that_runs_meanwhile_only_delays_the_end_of_the_write_ahead_log(
    completions: Completions, add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    add(1, "zyxwvut", customer="kim")
    completions.close()
    monkeypatch.setattr("tunewheel_console.completions.BUSY_SECONDS", 0.0)
    completions.open()
    with completions._reading() as search:
        search.execute("BEGIN")
        search.execute("SELECT * FROM completions").fetchone()
        add(2)
        completions.erase([Erasure(project="desk", customer="kim", until=START + timedelta(days=1))])
        assert found(completions) == ["c-0002"]
    add(3)
    assert b"zyxwvut" not in stored(tmp_path)


def test_a_file_outlives_its_process_and_has_one_owner(completions: Completions, add: Add, tmp_path: Path):
    add(1)
    other = Completions(tmp_path / "completions")
    with pytest.raises(BlockingIOError):
        other.open()
    assert not other.is_open
    with pytest.raises(sqlite3.OperationalError):
        other.find("desk", Wanted(), None, limit=1, after=None)
    completions.close()
    other.open()
    assert found(other) == ["c-0001"]
    other.close()


@pytest.mark.parametrize("table", ["words_data", "completions", "labels"])
async def test_a_file_with_damage_that_a_search_meets_is_made_anew(
    completions: Completions, add: Add, tmp_path: Path, table: str
):
    for n in range(300):
        add(n, f"Question {n} about zebras", '{"category": "bell"}')
    (root,) = completions._connected.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
    ).fetchone()
    (size,) = completions._connected.execute("PRAGMA page_size").fetchone()
    completions.close()
    (file,) = (tmp_path / "completions").glob("*.sqlite")
    with file.open("r+b") as target:
        target.seek((root - 1) * size)
        target.write(bytes(255 - one for one in file.read_bytes()[(root - 1) * size : root * size]))
    completions.open()
    copy = CompletionCopy(Settings(), completions)
    with pytest.raises(sqlite3.DatabaseError):
        found(completions, words="zebras", label="bell")
    with pytest.raises(sqlite3.DatabaseError):
        add(301)
    completions.close()
    copy._open()
    assert (found(completions), completions.reached()) == ([], {})
    add(301, "More zebras")
    assert found(completions, words="zebras") == ["c-0301"]


def test_a_search_that_takes_too_long_ends_and_is_no_damage(
    completions: Completions, add: Add, monkeypatch: pytest.MonkeyPatch
):
    for n in range(100):
        add(n)
    for name, value in (("SEARCH_SECONDS", -1.0), ("STEPS", 10)):
        monkeypatch.setattr(f"tunewheel_console.completions.{name}", value)
    with pytest.raises(sqlite3.OperationalError) as ended:
        found(completions, words="ring")
    assert ended.value.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
    monkeypatch.setattr("tunewheel_console.completions.SEARCH_SECONDS", 60.0)
    assert len(found(completions, words="ring")) == 100


def test_files_of_an_earlier_format_are_deleted(completions: Completions, add: Add, tmp_path: Path):
    add(1)
    completions.close()
    for name in ("completions-1.sqlite", "completions-1.sqlite-wal"):
        (tmp_path / "completions" / name).write_bytes(b"zyxwvut")
    completions.open()
    assert found(completions) == ["c-0001"]
    assert b"zyxwvut" not in b"".join(one.read_bytes() for one in (tmp_path / "completions").iterdir())


def test_a_damaged_file_can_be_replaced_by_an_empty_one(completions: Completions, add: Add, tmp_path: Path):
    add(1)
    completions.close()
    (file,) = (tmp_path / "completions").glob("*.sqlite")
    file.write_bytes(b"no database, but long enough to be looked at " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        completions.open()
    completions.remove()
    assert (completions.is_open, found(completions), completions.reached()) == (True, [], {})


async def test_a_console_that_is_to_keep_none_deletes_those_of_its_earlier_start(
    completions: Completions, add: Add, tmp_path: Path
):
    add(1, "zyxwvut")
    folder = tmp_path / "completions"
    keeps_none = CompletionCopy(Settings(completions_kept=0), Completions(folder))
    await keeps_none.start()
    assert found(completions) == ["c-0001"], "another console has the file"
    completions.close()
    await keeps_none.start()
    await keeps_none.stop()
    assert not any(b"zyxwvut" in path.read_bytes() for path in folder.iterdir())
    nowhere = CompletionCopy(Settings(completions_kept=0), Completions(tmp_path / "none"))
    await nowhere.start()
    assert not (tmp_path / "none").exists()


def test_only_the_owner_of_the_process_may_read_the_file(completions: Completions, add: Add, tmp_path: Path):
    add(1)
    modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.rglob("*sqlite*")}
    assert modes
    assert not any(modes.values())
