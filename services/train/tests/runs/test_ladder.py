from __future__ import annotations

from pathlib import Path

from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.devices import processor
from tunewheel_planner.plan import DatasetStats, make_plan
from tunewheel_planner.shapes import KNOWN
from tunewheel_train.job import Job
from tunewheel_train.runs.ladder import next_rung


def job(**recipe: object) -> Job:
    here = Path("/tmp")
    return Job(
        run_id="run-1", base_model="m", train_path=here, output_dir=here, work_dir=here, cache_dir=here,
        recipe=TrainSpec.model_validate(recipe),
    )  # fmt: skip


def rungs(start: Job) -> list[tuple[str, str]]:
    found, present = [], start
    while (rung := next_rung(present, None, after_step=3)) is not None:
        present, adjustment = rung
        assert adjustment.after_step == 3
        found.append((adjustment.field, adjustment.value))
        assert len(found) < 10
    return found


def test_micro_batches_are_halved_then_activations_recomputed_then_the_base_quantised():
    assert rungs(job(on_out_of_memory="quantize")) == [
        ("micro_batch_size", "4"), ("micro_batch_size", "2"), ("micro_batch_size", "1"),
        ("gradient_checkpointing", "true"), ("method", "qlora"),
    ]  # fmt: skip


def test_without_leave_the_method_stays():
    assert rungs(job(micro_batch_size=1)) == [("gradient_checkpointing", "true")]
    assert rungs(job(micro_batch_size=1, on_out_of_memory="quantize", method="full"))[-1][0] != "method"


def test_a_spec_may_forbid_the_ladder():
    assert rungs(job(on_out_of_memory="fail")) == []


def test_a_smaller_micro_batch_still_divides_the_batch():
    assert [value for field, value in rungs(job(batch_size=9, micro_batch_size=9)) if "micro" in field] == [
        "3", "1",
    ]  # fmt: skip


def test_the_ladder_begins_where_the_plan_had_put_the_run():
    stats = DatasetStats(examples=100, tokens=40_000, longest=800, learnt=10_000)
    small = processor(memory_bytes=7 << 30, teraflops=1, bfloat16=True)
    plan = make_plan(KNOWN["meta-llama/Llama-3.2-1B-Instruct"], stats, TrainSpec(), small)
    assert plan.gradient_checkpointing
    lowered, adjustment = next_rung(job(), plan, after_step=0) or (None, None)
    assert lowered is not None
    assert lowered.gradient_checkpointing is True
    assert int(adjustment.value) < plan.micro_batch_size <= 8
