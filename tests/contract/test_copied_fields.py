"""Which fields ``shared`` copies from where: unsaid, a renamed one would be left out and a new one copied."""

from __future__ import annotations

import ast
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel
from tunewheel_contracts.api.commands import Erasure
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.evaluation import AnswersCompared, EvalPassed
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_contracts.events.training import (
    SweepProgressed,
    SweepRequested,
    TrainCompleted,
    TrainFailed,
    TrainPlanned,
    TrainStarted,
)
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.index import IndexManifest
from tunewheel_contracts.formats.retrieval_scores import CellDifference
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.formats.scorecard import Finding, Scorecard
from tunewheel_eval.contest import Contest
from tunewheel_eval.job import Job
from tunewheel_monitor.detectors import protocol as monitoring
from tunewheel_monitor.state import Version
from tunewheel_retrieval.files import IndexFiles
from tunewheel_train.progress import Completed, Planned, Started
from tunewheel_train.runs.runs import Result, Run
from tunewheel_verdicts.significance import Advantage

ROOT = Path(__file__).resolve().parents[2]
_ADVANTAGE = "alpha clusters difference high low p_value rows test"
COPIED: dict[type[BaseModel], tuple[tuple[type, ...], str]] = {
    AlarmOpened: (
        (DriftDetected,),
        "alarm_id cluster dataset_id detector model_id project reopens signal suggested_action",
    ),
    CellDifference: ((Advantage,), _ADVANTAGE),
    DatasetVersioned: (
        (DatasetManifest,),
        "counts criteria_sha256 dataset_id funnel index index_id preliminary previous project spec_sha256",
    ),
    DriftDetected: (
        (Version, monitoring.Finding),
        "cluster dataset_id detector effect effect_unit model_id p_value reference statistic "
        "statistic_name threshold",
    ),
    Erasure: ((ErasureRequested,), "customer erasure_id project reason requested_at requested_by source_id"),
    EvalPassed: (
        (Scorecard, EvaluationPlan),
        "adapter bundle checks contestants criteria_sha256 dataset dataset_id evaluation_id project "
        "requested run_id",
    ),
    Finding: ((Advantage,), _ADVANTAGE),
    IndexManifest: (
        (IndexFiles,),
        "config_sha256 counts dimensions documents embedding floors index_id injections lexical passages "
        "project vectors",
    ),
    InferenceScored: ((AnswersCompared,), "completion_id judge model_id preference project"),
    Job: ((Contest,), "examples items other_mode others prompted repeats with_passages"),
    RunManifest: (
        (Result, Run, Completed),
        "adjustments best_step criteria_sha256 dataset dataset_id dtype metrics plan project recipe "
        "resumed_from_steps run_id start steps stopped_early_at tokens usage versions wall_seconds",
    ),
    SweepProgressed: ((SweepRequested,), "dataset_id max_dollars max_hours method project sweep_id"),
    TrainCompleted: (
        (RunManifest,),
        "adapter criteria_sha256 dataset dataset_id plan project run_id start tokens usage wall_seconds",
    ),
    TrainFailed: ((Run,), "attempt dataset_id project run_id"),
    TrainPlanned: ((Run, Planned), "base cautions dataset_id plan project run_id"),
    TrainStarted: (
        (Run, Started),
        "attempt base cuda dataset_id device driver kernels project resumed_from_step run_id total_steps",
    ),
}
"""By model, what it is copied from, and the names of what is copied."""


def names_of(kind: type) -> set[str]:
    own = set(kind.model_fields) if issubclass(kind, BaseModel) else set[str]()
    return own | set(dir(kind)) | ({one.name for one in fields(kind)} if is_dataclass(kind) else set())


@pytest.mark.parametrize("kind", COPIED, ids=lambda kind: kind.__name__)
def test_no_field_is_copied_or_left_out_unsaid(kind: type[BaseModel]) -> None:
    sources, names = COPIED[kind]
    assert sorted(kind.model_fields.keys() & set[str]().union(*map(names_of, sources))) == names.split()


def test_every_copy_is_in_the_table() -> None:
    calls = [
        node
        for below in ("*", "services/*")
        for path in ROOT.glob(f"{below}/src/tunewheel_*/**/*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "shared"
    ]
    copied = {ast.unparse(call.args[0]) for call in calls} - {"kind"}  # the console's ``told``
    assert copied | {"Erasure"} == {kind.__name__ for kind in COPIED}
