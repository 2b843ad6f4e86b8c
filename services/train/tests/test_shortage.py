from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.devices import processor
from tunewheel_planner.plan import DatasetStats, make_plan
from tunewheel_planner.plan import rungs as rungs_of
from tunewheel_planner.shapes import KNOWN
from tunewheel_train.job import Job
from tunewheel_train.shortage import (
    disk_full,
    ended_by_bitsandbytes,
    is_disk_full,
    is_out_of_memory,
    next_rung,
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_a_refused_allocation_is_known_by_its_words(error: Exception):
    assert is_out_of_memory(error)
    assert not is_disk_full(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("I/O error: File too large (os error 27)"),
        TransientError(f"/cache cannot store the base ({OSError(errno.EDQUOT, 'Disk quota exceeded')})"),
    ],
)
def test_a_full_disk_is_known_by_its_number_or_its_words(error: Exception):
    assert is_disk_full(error)
    assert disk_full(error).field == "(disk)"
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "No such file"),
        RuntimeError("os error 2"),
        ValueError("shape mismatch"),
        TransientError(f"/cache cannot store the base ({OSError(errno.EACCES, 'Permission denied')})"),
    ],
)
def test_other_errors_are_neither(error: Exception):
    assert not is_disk_full(error)
    assert not is_out_of_memory(error)


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


def test_bitsandbytes_is_known_by_its_line_in_the_log_of_this_try(tmp_path: Path):
    log = tmp_path / "train.log"
    assert not ended_by_bitsandbytes(log, 0)
    line = "Error out of memory at line 380 in file /src/csrc/pythonInterface.cpp\n"
    log.write_text(f"Loading\n{line}")
    assert ended_by_bitsandbytes(log, 0)
    began = log.stat().st_size
    log.write_text(f"{log.read_text()}Error invalid argument at line 76 in file /src/csrc/ops.cu\n")
    assert not ended_by_bitsandbytes(log, began), "of an earlier try"
    log.write_text(f"{log.read_text()}{line}W1201 torch.distributed closing\n")
    assert ended_by_bitsandbytes(log, began)


def test_micro_batches_are_halved_then_activations_recomputed_then_the_base_quantised():
    assert rungs(job(on_out_of_memory="quantize")) == [
        ("micro_batch_size", "4"), ("micro_batch_size", "2"), ("micro_batch_size", "1"),
        ("gradient_checkpointing", "true"), ("method", "qlora"),
    ]  # fmt: skip


def test_two_processes_that_were_the_runs_own_choice_become_one_first():
    start = job().model_copy(update={"processes": 0})
    stats = DatasetStats(examples=100, tokens=40_000, longest=600, learnt=4_000)
    large = processor(memory_bytes=64 << 30, teraflops=1.0, bfloat16=True)
    shape = KNOWN["meta-llama/Llama-3.2-1B-Instruct"]
    plan = make_plan(shape, stats, start.recipe, large, processes=2)
    alone, adjustment = next_rung(start, plan, after_step=3)
    assert (adjustment.field, alone.processes, alone.recipe) == ("processes", 1, start.recipe)
    assert next_rung(alone, plan.model_copy(update={"processes": 1}), after_step=3)[1].field != "processes"


def test_without_leave_the_method_stays():
    assert rungs(job(micro_batch_size=1)) == [("gradient_checkpointing", "true")]
    assert rungs(job(micro_batch_size=1, on_out_of_memory="quantize", method="full"))[-1][0] != "method"


def test_a_spec_may_forbid_the_ladder():
    assert rungs(job(on_out_of_memory="fail")) == []


def test_a_smaller_micro_batch_still_divides_the_batch():
    assert [value for field, value in rungs(job(batch_size=9, micro_batch_size=9)) if "micro" in field] == [
        "3", "1",
    ]  # fmt: skip


def test_the_ladder_begins_where_the_plan_had_put_the_run_and_goes_on_in_its_order():
    stats = DatasetStats(examples=100, tokens=40_000, longest=800, learnt=10_000)
    shape = KNOWN["meta-llama/Llama-3.2-1B-Instruct"]

    def planned(gib: int):
        small = processor(memory_bytes=gib << 30, teraflops=1, bfloat16=True)
        return make_plan(shape, stats, TrainSpec(), small)

    cut, recomputed = planned(7), planned(5)
    assert (cut.micro_batch_size, cut.gradient_checkpointing) == (2, False)
    lowered, adjustment = next_rung(job(), cut, after_step=0) or (None, None)
    assert (adjustment.field, adjustment.value) == ("micro_batch_size", "1")
    assert lowered.gradient_checkpointing is False
    assert recomputed.gradient_checkpointing
    lowered, adjustment = next_rung(job(), recomputed, after_step=0) or (None, None)
    assert lowered.gradient_checkpointing is True
    assert int(adjustment.value) < recomputed.micro_batch_size <= 8


def test_both_ladders_cut_before_they_recompute():
    recipe = TrainSpec(batch_size=12, micro_batch_size=12)
    assert rungs_of(recipe) == [(n, again) for again in (False, True) for n in (12, 6, 4, 3, 2, 1)]
    halved = [value for field, value in rungs(job(batch_size=12, micro_batch_size=12)) if "micro" in field]
    assert halved == ["6", "3", "1"]
