"""Replaces plans whose index version was deleted before their evaluation ended.

The index service keeps only a few versions. An evaluation that is resumed, by another process or hours later,
may find the version of its plan deleted. Then it gets a new plan on the newest index. The store notes once
which plan replaces which, so every resumption uses the same plan.
"""

from __future__ import annotations

from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan, EvaluationRequest, successor_path
from tunewheel_retrieval.opening import is_deleted
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.plan import RowsOf, make_plan, pin_later, read_plan
from tunewheel_eval.reviews import read_scorecard


async def standing_plan(
    store: ObjectStore, plan: EvaluationPlan, manifest: DatasetManifest, newest: IndexVersioned | None
) -> EvaluationPlan:
    """Return ``plan``, or the plan that replaces it: the same one on the ``newest`` index. If every plan lost
    its index, return the last one."""
    tried: set[str | None] = set()
    while plan.evaluation_id not in tried and await _lost_its_index(store, plan):
        tried.add(plan.evaluation_id)
        plan = await _successor(store, plan, manifest, newest)
    return plan


async def _lost_its_index(store: ObjectStore, plan: EvaluationPlan) -> bool:
    if plan.index is None or await read_scorecard(store, plan) is not None:
        return False
    return await is_deleted(store, plan.index)


async def _successor(
    store: ObjectStore, plan: EvaluationPlan, manifest: DatasetManifest, newest: IndexVersioned | None
) -> EvaluationPlan:
    note = successor_path(plan.run_id, str(plan.evaluation_id))
    named = await store.document(note, EvaluationRequest)
    if named is None:
        first = await read_plan(store, plan.run_id)
        if newest is None or newest.index_id == plan.index_id or first is None or plan.regression is None:
            return plan
        made = make_plan(
            first,
            manifest,
            plan.champion,
            regression=plan.regression,
            criteria=plan.criteria,
            precision=plan.precision or "float32",
            in_production=plan.in_production,
            index=newest,
            completes=plan.completes,
            reviewed=plan.reviewed,
            spent=plan.spent,
            rows=RowsOf(plan.rows_of, plan.rows) if plan.rows else None,
        )
        later = await pin_later(store, made)
        named = EvaluationRequest(evaluation_id=str(later.evaluation_id))
        named = await store.first_document(note, named)
    return await read_plan(store, plan.run_id, named.evaluation_id) or plan
