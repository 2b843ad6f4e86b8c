"""A training method is a line of the table of methods, and a preference method has a trainer of its name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import tunewheel_contracts
from tunewheel_contracts.formats.methods import PreferenceMethod

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"\b(?:Train|Preference)Method\.[A-Z]")
TRAINERS = ROOT / "services/train/src/tunewheel_train/trainers"
NEW = """
    LOFTQ = "loftq", Training(quantization="nf4", learning_rate=3e-4)
    SPARSE = "sparse", Training(adapter=False, smaller="loftq")
"""
PROGRAM = """
from pathlib import Path
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_planner.devices import catalogue
from tunewheel_planner.plan import DatasetStats, make_plan, parts_of
from tunewheel_planner.shapes import KNOWN
from tunewheel_train.job import Job
from tunewheel_train.model.sharding import why_whole
from tunewheel_train.shortage import next_rung

shape = KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"]
stats = DatasetStats(examples=100, tokens=10_000, longest=200, learnt=3_000)
device = catalogue().named("t4")
def planned(method):
    return make_plan(shape, stats, TrainSpec(method=method), device).memory
def adapter(method):
    base = BaseModelRef(name="b", revision="r")
    return AdapterRef(model_id="p-1", path="a", files=(), base=base, method=method)
def after(method):
    recipe = TrainSpec(method=method, micro_batch_size=1, on_out_of_memory="quantize")
    folder = Path("/")
    job = Job(run_id="run-1", base_model="b", train_path=folder, output_dir=folder, work_dir=folder,
              cache_dir=folder, gradient_checkpointing=True, recipe=recipe)
    rung = next_rung(job, None, after_step=1)
    return rung and rung[1].value

assert TrainSpec(method="loftq").learning_rate == 3e-4 != TrainSpec(method="sparse").learning_rate
assert TrainSpec(method="loftq", quantization="nf4").quantization == "nf4"
assert planned("loftq").weights == planned("qlora").weights
assert planned("loftq").optimizer == planned("lora").optimizer > planned("qlora").optimizer
assert planned("sparse") == planned("full")
assert [adapter(method).is_whole for method in ("loftq", "sparse")] == [False, True]
assert why_whole(TrainSpec(method="loftq")) and why_whole(TrainSpec(method="sparse")) is None
assert parts_of(TrainSpec(method="sparse").method, "cpu") == 1
assert (after("sparse"), after("loftq"), after("lora")) == ("loftq", None, "qlora")
"""


def test_a_new_training_method_is_one_line(tmp_path: Path) -> None:
    copy = tmp_path / "tunewheel_contracts"
    shutil.copytree(Path(tunewheel_contracts.__file__).parent, copy)
    table = copy / "formats" / "methods.py"
    first = '    LORA = "lora"'
    assert first in table.read_text()
    table.write_text(table.read_text().replace(first, NEW + first))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_each_preference_method_has_a_trainer_of_its_name() -> None:
    found = {file.name for file in TRAINERS.glob("*.py") if "\ndef make_trainer(" in file.read_text()}
    assert found == {f"{method}_trainer.py" for method in PreferenceMethod} > set()


def test_no_source_but_the_defaults_names_a_method() -> None:
    folders = (*ROOT.glob("*/src/tunewheel_*"), *ROOT.glob("services/*/src/tunewheel_*"))
    files = [file for folder in folders for file in folder.rglob("*.py")]
    assert len(files) > 500
    naming = {file.name for file in files if NAMED.search(file.read_text())}
    assert naming == {"recipe.py"}
    assert NAMED.search("if method is TrainMethod.FULL:")
