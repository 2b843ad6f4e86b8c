"""Keeps the latest completions of each project for search, in one SQLite file with an index of their words.

The file is a copy of what ``inference.completed`` holds: without it, or with one of another log, it is made
anew from the log. What is taken out of it is gone from its bytes too: deleted rows are overwritten
(``secure_delete``), the index of words is merged into one piece, which drops the words of deleted rows
(FTS5's own ``secure-delete`` needs SQLite 3.42), and the write-ahead log is cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_runtime.deadletter import Position

from tunewheel_console.completion_search import Wanted, conditions, label_marks, microseconds

FILE = "completions-2.sqlite"
"""The number is that of the format."""
BUSY_SECONDS = 10.0
SEARCH_SECONDS = 5.0
"""The longest search, in seconds of the processor: beside other work the clock says little."""
STEPS = 10_000
"""How many steps of SQLite's machine pass between two looks at the time."""
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
Place = tuple[datetime, str]
_QUESTION = """(SELECT group_concat(json_extract(value, '$.content'), char(10))
  FROM json_each({0}, '$.messages') WHERE json_extract(value, '$.role') <> 'system')"""
_WORDS = f"{_QUESTION}, json_extract({{0}}, '$.output')"
ANSWERED_BY = "json_extract(body, '$.answered_by')"
"""The answer that a client got in place of one that was withheld."""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS completions (
  n INTEGER PRIMARY KEY, project TEXT NOT NULL, id TEXT NOT NULL, at INTEGER NOT NULL, role TEXT NOT NULL,
  model TEXT NOT NULL, client TEXT, customer TEXT, shadow_of TEXT, latency REAL NOT NULL, valid INTEGER,
  partition INTEGER NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL, UNIQUE (project, id));
CREATE INDEX IF NOT EXISTS by_time ON completions (project, at, id);
CREATE INDEX IF NOT EXISTS by_customer ON completions (project, customer) WHERE customer IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_original ON completions (project, shadow_of) WHERE shadow_of IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_answer ON completions (project, {ANSWERED_BY}) WHERE {ANSWERED_BY} IS NOT NULL;
CREATE TABLE IF NOT EXISTS labels (mark INTEGER, n INTEGER, PRIMARY KEY (mark, n)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS labels_of ON labels (n);
CREATE TABLE IF NOT EXISTS reached (
  partition INTEGER PRIMARY KEY, position INTEGER NOT NULL, event TEXT NOT NULL);
CREATE VIEW IF NOT EXISTS texts AS
  SELECT n, {_QUESTION.format("body")} AS question, json_extract(body, '$.output') AS answer FROM completions;
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(question, answer, content='texts', content_rowid='n',
  tokenize='unicode61 remove_diacritics 2');
CREATE TRIGGER IF NOT EXISTS told AFTER INSERT ON completions BEGIN
  INSERT INTO words(rowid, question, answer) VALUES (new.n, {_WORDS.format("new.body")}); END;
CREATE TRIGGER IF NOT EXISTS untold BEFORE DELETE ON completions BEGIN
  DELETE FROM labels WHERE n = old.n;
  INSERT INTO words(words, rowid, question, answer)
  VALUES ('delete', old.n, {_WORDS.format("old.body")}); END;
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """One completion and its place on the log."""

    data: InferenceCompleted
    position: Position


class Completions:
    """The file in ``folder``. One process at a time may open it. ``find``, ``newest`` and ``show`` may be
    called from any thread, everything else from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / FILE
        self._lock = -1
        self._db: sqlite3.Connection | None = None
        self._is_cut = False
        """Whether nothing deleted is in the write-ahead log any more."""
        self.is_damaged = False
        """Whether a search or a change found the file damaged. It must be removed then."""

    @property
    def is_open(self) -> bool:
        return self._db is not None

    def open(self) -> None:
        """Open or make the file. Raises BlockingIOError: another process has it open. OSError, sqlite3.Error:
        it cannot be opened."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._hold()
            self._unlink(but=FILE)
            with self._noticing():
                self._db = self._opened()
                self._cut()
        except BaseException:
            self.close()
            raise

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS)
        self._path.chmod(0o600)
        # Before the first table, or a file that exists would not be changed.
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "secure_delete = ON",
            "temp_store = MEMORY",
        ):
            db.execute(f"PRAGMA {pragma}")
        db.executescript(_SCHEMA)
        return db

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Delete the file, which must be open or have just failed to open, and begin an empty one."""
        if self._db is not None:
            self._db.close()
            self._db = None
        self._unlink()
        self.is_damaged = False
        self.close()
        self.open()

    def discard(self) -> None:
        """Delete the file, if there is one that no other process has open."""
        if not self._folder.exists():
            return
        with contextlib.suppress(BlockingIOError):
            self._hold()
            self._unlink()
        self.close()

    def _hold(self) -> None:
        if self._lock < 0:
            self._lock = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlink(self, but: str | None = None) -> None:
        """Delete the files, of earlier formats too; ``but`` that of this name stays."""
        for path in self._folder.glob("completions-*"):
            if but is None or not path.name.startswith(but):
                path.unlink(missing_ok=True)

    def reached(self) -> dict[int, tuple[int, str]]:
        """Return by partition the offset after the last completion that was read, and the id of its
        event."""
        return {n: (at, event) for n, at, event in self._connected.execute("SELECT * FROM reached")}

    def add(self, found: Iterable[Kept], reached: Mapping[int, tuple[int, str]]) -> None:
        """Add completions, and note how far the log was read, as one step. One that is there stays as it is.
        Raises sqlite3.Error."""
        with self._changing() as db:
            for one in found:
                added = db.execute(
                    "INSERT OR IGNORE INTO completions(project, id, at, role, model, client, customer, "
                    "shadow_of, latency, valid, partition, position, body) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    _row(one),
                )
                if added.rowcount:
                    marks = [
                        (mark, added.lastrowid) for mark in label_marks(one.data.project, one.data.output)
                    ]
                    db.executemany("INSERT INTO labels VALUES (?, ?)", marks)
            db.executemany(
                "INSERT OR REPLACE INTO reached VALUES (?, ?, ?)", [(n, *at) for n, at in reached.items()]
            )
        if not self._is_cut:
            self._cut()

    def erase(self, erasures: Iterable[Erasure]) -> int:
        """Delete what ``erasures`` cover, copies of shadow models too, and return the number. On return their
        texts are neither in the file nor in its index. Raises sqlite3.Error."""
        where = "project = ? AND at <= ? AND "
        return self._deleted(
            [
                (where + "customer = ?", (one.project, microseconds(one.until), one.customer))
                if one.customer is not None
                else (
                    where + f"(id = ? OR shadow_of = ? OR {ANSWERED_BY} = ?)",
                    (one.project, microseconds(one.until), one.source_id, one.source_id, one.source_id),
                )
                for one in erasures
            ]
        )

    def trim(self, *, most: int, before: datetime) -> int:
        """Delete, of each project, all but the newest ``most`` completions, and what is older than
        ``before``. Return the number. Raises sqlite3.Error."""
        db, over = self._connected, list[tuple[str, tuple[Any, ...]]]()
        for (name,) in db.execute("SELECT DISTINCT project FROM completions").fetchall():
            over.append(("project = ? AND at < ?", (name, microseconds(before))))
            newest = (
                "SELECT at, id FROM completions WHERE project = ? ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?"
            )
            if (last := db.execute(newest, (name, most)).fetchone()) is not None:
                over.append(("project = ? AND (at, id) <= (?, ?)", (name, *last)))
        return self._deleted(over)

    def _deleted(self, over: Sequence[tuple[str, tuple[Any, ...]]]) -> int:
        """Delete the rows of each condition, as one step with their words."""
        with self._changing() as db:
            taken = sum(
                db.execute(f"DELETE FROM completions WHERE {where}", of).rowcount for where, of in over
            )
            if taken:
                # Deleted words lie in older pieces of the index until these are merged.
                db.execute("INSERT INTO words(words) VALUES ('optimize')")
                self._is_cut = False
        if not self._is_cut:
            self._cut()
        return taken

    def _cut(self) -> None:
        """Copy the write-ahead log into the file and make it empty. A search that runs just now may prevent
        that; then the next change does it."""
        (busy, _, _) = self._connected.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._is_cut = not busy

    def find(
        self, project: str, wanted: Wanted, task: TaskSpec | None, *, limit: int, after: Place | None
    ) -> tuple[list[InferenceCompleted], int]:
        """Return up to ``limit`` completions, newest first, that come after ``after``, and the number of all.
        ``task`` says what the label of an answer is; None: no answer has a label. Raises sqlite3.Error, also
        after ``SEARCH_SECONDS``."""
        tables, terms, values = conditions(project, wanted, task)
        where, place = " AND ".join(terms), "1"
        cursor: tuple[Any, ...] = ()
        if after is not None:
            place, cursor = "(c.at, c.id) < (?, ?)", (microseconds(after[0]), after[1])
        # What is dear to decide is decided once for the number and the page. The page sorts no texts.
        kind = "MATERIALIZED" if wanted.is_dear else "NOT MATERIALIZED"
        page = f"SELECT n FROM found AS c WHERE {place} ORDER BY at DESC, id DESC LIMIT ?"
        with self._reading() as db:
            total, numbers = db.execute(
                f"WITH found AS {kind} (SELECT c.n, c.at, c.id FROM {tables} WHERE {where}) "
                f"SELECT (SELECT count(*) FROM found), (SELECT json_group_array(n) FROM ({page}))",
                (*values, *cursor, limit),
            ).fetchone()
            found = db.execute(
                "SELECT body FROM completions WHERE n IN (SELECT value FROM json_each(?)) "
                "ORDER BY at DESC, id DESC",
                (numbers,),
            )
            return [InferenceCompleted.model_validate_json(body) for (body,) in found], total

    def named(self, project: str, beginning: str | None, *, most: int) -> list[str]:
        """Return the newest ids that begin with ``beginning``, first the id that is just that; None: any.
        Raises sqlite3.Error."""
        last = "" if beginning is None else beginning + "\U0010ffff"
        with self._reading() as db:
            found = db.execute(
                "SELECT id FROM completions WHERE project = ? AND (? = '' OR id BETWEEN ? AND ?) "
                "ORDER BY id = ? DESC, at DESC, id DESC LIMIT ?",
                (project, last, beginning, last, beginning, most),
            )
            return [name for (name,) in found]

    def show(self, project: str, name: str) -> tuple[InferenceCompleted, tuple[str, ...]] | None:
        """Return a completion, and the ids of its copies for shadow models; None: it is not here. Raises
        sqlite3.Error."""
        with self._reading() as db:
            of = "FROM completions WHERE project = ? AND"
            found = db.execute(f"SELECT body {of} id = ?", (project, name)).fetchone()
            copies = db.execute(f"SELECT id {of} shadow_of = ? ORDER BY id", (project, name)).fetchall()
        if found is None:
            return None
        return InferenceCompleted.model_validate_json(found[0]), tuple(copy for (copy,) in copies)

    def places(self, project: str, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Return by id the partition and the offset of completions. Ids that are not here are left out.
        Raises sqlite3.Error."""
        with self._reading() as db:
            where = "SELECT partition, position FROM completions WHERE project = ? AND id = ?"
            found = {name: db.execute(where, (project, name)).fetchone() for name in names}
        return {name: place for name, place in found.items() if place is not None}

    @property
    def _connected(self) -> sqlite3.Connection:
        if self._db is None:
            raise sqlite3.OperationalError("the completions are not open")
        return self._db

    @contextlib.contextmanager
    def _noticing(self) -> Generator[None]:
        """Note damage that SQLite finds within."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says where
            self.is_damaged |= code in DAMAGED
            raise

    @contextlib.contextmanager
    def _changing(self) -> Generator[sqlite3.Connection]:
        db = self._connected
        if self.is_damaged:
            raise sqlite3.DatabaseError("the file is damaged")
        with self._noticing():
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        _ = self._connected
        address, until = f"file:{quote(str(self._path))}?mode=ro", time.thread_time() + SEARCH_SECONDS
        with (
            self._noticing(),
            contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as db,
        ):
            db.set_progress_handler(lambda: time.thread_time() > until, STEPS)
            yield db


def _row(one: Kept) -> tuple[Any, ...]:
    data = one.data
    return (
        data.project, data.completion_id, microseconds(data.completed_at), data.role.value, data.model_id,
        data.client, data.customer, data.shadow_of, data.latency_seconds, data.format_valid,
        one.position.partition, one.position.offset, data.model_dump_json(),
    )  # fmt: skip
