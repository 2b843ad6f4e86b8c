"""Starts the reading process, when the first document needs it, and gives it documents."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from tunewheel_contracts.errors import TransientError

from tunewheel_ingest.parsing.document import ParsedDocument, Unreadable
from tunewheel_ingest.parsing.limits import Limits
from tunewheel_ingest.parsing.worker import Order, Outcome

COMMAND = (sys.executable, "-m", "tunewheel_ingest.parsing.worker")
GRACE_SECONDS = 30
"""Time beyond the document's own limit, for loading libraries on a busy machine."""


class ParserProcess:
    """Reads documents, one at a time, in a process with limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def parse(
        self, source: Path, *, media_type: str, name: str, is_mail: bool = False
    ) -> ParsedDocument:
        """Read the file at ``source``; ``name`` is the document's id, and ``is_mail`` is as in ``Order``.

        Raises:
            Unreadable: the document does not fit its media type, holds no text, or exceeds a limit.
            TransientError: the reading process died; the next call starts a new one.
        """
        limits = self._limits.for_mail if is_mail else self._limits
        with tempfile.TemporaryDirectory(prefix="parsed-") as scratch:
            target = Path(scratch) / "document.json"
            order = Order(
                source=str(source), target=str(target), media_type=media_type, name=name,
                limits=limits, is_mail=is_mail,
            )  # fmt: skip
            async with self._turn:
                outcome = await self._ask(order)
            if outcome.status == "refused":
                raise Unreadable(outcome.reason)
            return ParsedDocument.model_validate_json(await asyncio.to_thread(target.read_bytes))

    async def close(self) -> None:
        """End the process, even while it reads a document."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _ask(self, order: Order) -> Outcome:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # a process group of its own, so that its children end with it
            )
        assert process.stdin is not None
        assert process.stdout is not None
        answered = False
        try:
            process.stdin.write(order.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
            async with asyncio.timeout(order.limits.wall_seconds + GRACE_SECONDS):
                line = await process.stdout.readline()
            answered = bool(line)
        except (ConnectionError, TimeoutError) as error:
            raise TransientError(f"the reading process does not answer ({error!r})") from error
        finally:
            if not answered:  # also if cancelled, else the next order would get this order's answer
                await asyncio.shield(self.close())
        if not answered:
            raise TransientError("the reading process ended; another is started")
        return Outcome.model_validate_json(line)
