"""The memory that is left for weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tunewheel_generation import memory
from tunewheel_generation.memory import free_main_memory


class TestFreeMemory:
    @pytest.fixture
    def meminfo(self, tmp_path: Path) -> Path:
        file = tmp_path / "meminfo"
        file.write_text(
            "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   1000 kB\nHugePages_Total: 0\n"
        )
        return file

    def group(self, folder: Path, **figures: str) -> Path:
        for name, text in figures.items():
            (folder / f"memory.{name}").write_text(text)
        return folder

    def test_it_is_the_machine_s_without_a_limit(self, meminfo: Path, tmp_path: Path) -> None:
        for group in (tmp_path / "none", self.group(tmp_path, max="max\n", current="5\n")):
            assert free_main_memory(meminfo=meminfo, cgroup=group) == 1000 << 10

    def test_a_control_group_may_leave_less(self, meminfo: Path, tmp_path: Path) -> None:
        group = self.group(
            tmp_path, max="500000\n", current="450000\n", stat="anon 400000\ninactive_file 30000\n"
        )
        assert free_main_memory(meminfo=meminfo, cgroup=group) == 80_000

    def test_where_nothing_is_told_nothing_is_known(self, tmp_path: Path) -> None:
        assert free_main_memory(meminfo=tmp_path / "none", cgroup=tmp_path) is None

    def test_this_machine_tells(self) -> None:
        device = torch.device("cpu")
        free = memory.free_bytes(device)
        assert free is None or free > 0
        resident = (1 << 50) - memory.untouched_bytes(device, 1 << 50)
        assert 0 <= resident < 1 << 40
        assert memory.untouched_bytes(device, 1) == 0 or resident == 0
