from __future__ import annotations

import errno

import pytest
from tunewheel_train.runs.shortage import disk_full, is_disk_full, is_out_of_memory


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
    ],
)
def test_a_full_disk_is_known_by_its_number_or_its_words(error: Exception):
    assert is_disk_full(error)
    assert disk_full(error).field == "(disk)"
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "No such file"), RuntimeError("os error 2"), ValueError("shape mismatch")]
)
def test_other_errors_are_neither(error: Exception):
    assert not is_disk_full(error)
    assert not is_out_of_memory(error)
