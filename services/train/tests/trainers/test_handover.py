"""Two nodes with disks of their own train one run (DDP, gloo), one process each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tunewheel_train.progress import Completed, Progressed, Started, parse
from tunewheel_train.trainers import checkpoints, handover


def messages(job_file: Path, rank: int) -> list:
    return [parse(line) for line in Path(f"{job_file}.{rank}.out").read_bytes().splitlines()]


@pytest.mark.nightly("kills")
def test_nodes_with_disks_of_their_own_resume_alike_after_a_kill(trained, case, forge, tmp_path: Path):
    """The second node dies behind the checkpoint of step 4, which lies on the first one's disk alone, and
    then has one of another step."""
    nodes = [case(f"node-{rank}") for rank in range(2)]
    files = [tmp_path / f"job-{rank}.json" for rank in range(2)]
    for file, node in zip(files, nodes, strict=True):
        file.write_text(node.job.model_copy(update={"stuck_seconds": 1234.0}).model_dump_json())
    died, killed = forge(*files, point="checkpoint reported")
    assert (died > 0, killed) == (True, -9)
    first, second = (node.job.work_dir for node in nodes)
    newest = checkpoints.latest(first)
    assert newest is not None
    assert (newest.name, checkpoints.candidates(second)) == (checkpoints.name_of(4), [])
    (second / checkpoints.name_of(6)).mkdir()
    assert forge(*files) == [0, 0]
    assert [path.name for path in checkpoints.candidates(second)] == [checkpoints.name_of(4)]
    for rank, file in enumerate(files):
        assert [m.resumed_from_step for m in messages(file, rank) if isinstance(m, Started)] == [0, 4]
        assert Path(f"{file}.{rank}.patience").read_text() == "1234.0"
    outcome = messages(files[0], 0)[-1]
    assert isinstance(outcome, Completed)
    expected, alone = trained("lora")
    assert (outcome.steps, outcome.tokens) == (alone.steps, alone.tokens)
    assert outcome.resumed_from_steps == (4,)
    losses = {m.step: m.loss for m in messages(files[0], 0) if isinstance(m, Progressed)}
    # sums of floats are taken in another order
    wanted = {m.step: m.loss for m in expected.heard(Progressed)}
    assert all(abs(losses[step] - loss) < 1e-4 for step, loss in wanted.items())
    assert losses.keys() == wanted.keys()
    for name, value in expected.weights().items():
        torch.testing.assert_close(nodes[0].weights()[name], value, rtol=1e-3, atol=1e-4)
    assert not nodes[1].job.output_dir.exists()


def test_a_node_takes_no_file_that_would_lie_outside_the_checkpoint(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    said = iter(["{}", {"../outside": 1}])
    monkeypatch.setattr(handover, "from_first", lambda value: next(said))
    monkeypatch.setattr(handover, "_any", bool)
    with pytest.raises(ValueError, match="no file of a checkpoint"):
        handover._hand_over(tmp_path / "checkpoint-000004")
