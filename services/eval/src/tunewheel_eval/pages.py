"""Makes a scorecard's page from the stored scorecard and outputs. After an erasure it is made again."""

from __future__ import annotations

from collections.abc import Collection

from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.artifacts import read_written
from tunewheel_eval.generations import Generation, read_generations
from tunewheel_eval.page import render_page


async def make_page(
    store: ObjectStore, plan: EvaluationPlan, scorecard: Scorecard, *, without: Collection[str] | None = ()
) -> bytes:
    """Return the page of a plan's scorecard. ``without``: examples that it must not show; None: it shows
    none.

    Raises:
        TransientError: the store cannot be reached.
    """
    rows: list[Generation] = []
    if without is not None:
        rows += await _written(store, scorecard, plan.scorecard_path)
    shown = [row for row in rows if without is not None and row.example_id not in without]
    return render_page(scorecard, shown, informs=plan.informs).encode()


async def _written(store: ObjectStore, scorecard: Scorecard, path: str) -> tuple[Generation, ...]:
    """Return the outputs. After an erasure the rest of them has another name."""
    if scorecard.generations is None:
        return ()
    data = await store.read(scorecard.generations.path)
    return read_generations(data) if data is not None else await read_written(store, path)
