"""What the demo's customers ask and its experts say, without a wheel."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.formats.label_prompts import LABEL_REQUEST
from tunewheel_demo.example import Example, Ticket, bundled
from tunewheel_demo.gauge import Stopwatch, fast_precision
from tunewheel_demo.run import _empty, _failed
from tunewheel_demo.shift import RATINGS, expert_answers
from tunewheel_demo.traffic import Answered
from tunewheel_local.connection import InvalidOption
from tunewheel_local.places import Var

ROOT = Path(__file__).resolve().parents[2]
HELPDESK = Example.at(ROOT / "examples" / "helpdesk")
ALIEN = ("logs/engine.log", "store/adapters/a.safetensors", "identity/pseudonym-secret", "thesis.tex")
TICKET = Ticket("t-1", "No power", {"category": "solar_output"}, "expert-01", "c-7")


@pytest.mark.parametrize(
    ("text", "thumb"),
    [
        ('{"category": "solar_output", "reply": "wait"}', "up"),
        ('{"category": "battery"}', "down"),
        ("[]", "down"),
        ("solar_output", "down"),
    ],
)
def test_an_expert_likes_answers_of_the_right_category(text: str, thumb: str) -> None:
    assert Answered(TICKET, "c-1", text, "desk/base").thumb("category") == thumb


def test_experts_answer_the_prompts_that_wait_last_and_say_what_they_answer() -> None:
    wave = HELPDESK.second_wave()
    heard = [Answered(ticket, f"c-{n}", "", "desk/base") for n, ticket in enumerate(wave)]
    wanted = LabelsRequested(
        project="helpdesk", request_id="labels-1", alarm_id="alarm-1", dataset_id="ds-1", wanted=20,
        completion_ids=("c-3", "c-50"),
    )  # fmt: skip
    answers = expert_answers(heard, wanted)
    assert len(answers) == len(wave) == 101
    assert [one.example_id for one in answers[-2:]] == ["c-3", "c-50"]
    assert all(one.attributes == {LABEL_REQUEST: "labels-1"} for one in answers)
    assert answers[-1].input == wave[50].question
    assert answers[-1].output == wave[50].answer
    assert answers[-1].group == wave[50].customer


def test_the_second_wave_is_about_something_new_and_no_silence_builds_a_version_of_it() -> None:
    known = {ticket.answer["category"] for ticket in HELPDESK.first_wave()}
    new = [ticket for ticket in HELPDESK.second_wave() if ticket.answer["category"] not in known]
    spec = HELPDESK.spec
    assert len(new) >= RATINGS
    assert len(HELPDESK.third_wave()) == RATINGS
    assert {ticket.answer["category"] for ticket in HELPDESK.third_wave()} <= {
        ticket.answer["category"] for ticket in new
    }
    asked_before = {ticket.question for ticket in (*HELPDESK.first_wave(), *HELPDESK.second_wave())}
    assert not asked_before & {ticket.question for ticket in HELPDESK.third_wave()}
    assert len(HELPDESK.second_wave()) >= spec.drift.turns.min_labels
    assert len(HELPDESK.second_wave()) < spec.dataset.build.quiet_min_records < len(HELPDESK.first_wave())


def test_the_example_is_tried_in_shadow_and_in_canary() -> None:
    rollout = HELPDESK.spec.rollout
    assert rollout.shadow.enabled
    assert rollout.canary.enabled


def test_the_bundled_example_is_the_checkouts_or_the_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert bundled().resolve() == HELPDESK.root
    monkeypatch.chdir(tmp_path)
    assert bundled() == Path("examples/helpdesk"), "neither: the demo says that no example lies there"
    installed = tmp_path / "site-packages/tunewheel_example/helpdesk"
    installed.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    assert bundled() == installed


def files_below(root: Path, names: tuple[str, ...] = ALIEN) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("kept")


@pytest.mark.parametrize("count", range(1, len(ALIEN) + 1))
def test_a_demo_deletes_no_folder_that_no_demo_made(tmp_path: Path, count: int) -> None:
    files_below(tmp_path, ALIEN[:count])
    with pytest.raises(InvalidOption, match=r"--var: .* is not empty"):
        _empty(tmp_path)
    assert all((tmp_path / name).read_text() == "kept" for name in ALIEN[:count])


def test_a_demo_empties_an_earlier_demos_folder_but_not_what_a_link_in_it_names(tmp_path: Path) -> None:
    folder, other = tmp_path / "var" / "demo", tmp_path / "other"
    _empty(folder)
    files_below(folder)
    files_below(other)
    (folder / "link").symlink_to(other)
    _empty(folder)
    assert [entry.name for entry in folder.iterdir()] == [".tunewheel-demo"]
    assert (other / "thesis.tex").is_file()


def test_a_failed_step_says_what_failed_what_is_kept_and_where_its_traceback_is(tmp_path: Path) -> None:
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError) as raised, watch.stage("first turn"), watch.stage("roll out 1"):
        raise ZeroDivisionError("404, message='Not Found'")
    told = str(_failed(raised.value, watch.failed, Var(tmp_path)))
    assert "\n" not in told
    assert "'roll out 1' failed: 404, message='Not Found'" in told
    assert f"`tunewheel up --var {tmp_path}`" in told
    assert "ZeroDivisionError: 404" in (tmp_path / "logs" / "demo.log").read_text()


def test_what_cleans_the_checkout_leaves_the_wheel_on_var() -> None:
    for target, deletes in (("clean", False), ("wipe", True)):
        plan = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert (re.search(r"rm -rf [^\n]*\bvar\b", plan.stdout) is not None) is deletes, plan.stdout


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx512f amx_bf16 amx_tile", "bfloat16"),
        ("avx512_bf16 fpu", "bfloat16"),
        ("avx2 avx512f", "float32"),
    ],
)
def test_a_demo_computes_in_the_precision_that_its_processor_is_fast_in(
    tmp_path: Path, flags: str, precision: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: bf16\nflags\t\t: {flags}\n")
    assert fast_precision(cpuinfo=cpuinfo) == precision
    assert fast_precision(cpuinfo=tmp_path / "none") == "float32"
