"""Each hang of a turn, planted in a project's events, raises one alert that names the step and the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tunewheel_testing.story import PROJECT, Story, example, model_of
from tunewheel_wheel.waits import STEPS, waits_of
from tunewheel_wheel.wheel import Wheel

from .test_observability import ALERTS, FOLDER, promtool

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HANGS, AWAITED, FAILED = "TunewheelTurnHangs", "TunewheelPeopleAwaited", "TunewheelTurnFailed"


class Turn(Story):
    """One turn, as far as it came."""

    def asked(self) -> None:
        self.versioned_by = self.request()

    def versioned(self) -> None:
        self.asked()
        self.version(self.versioned_by, "ds-1")

    def trained(self) -> None:
        self.versioned()
        self.train("started", "ds-1")
        self.train("completed", "ds-1")

    def moved(self, stage: str, **more: Any) -> None:
        fields = {"from_stage": "evaluated", "to_stage": stage, "generation": len(self.events)}
        self.say("model.promoted", model_id=model_of("ds-1"), cause=f"{len(self.events)}", **fields | more)

    def served(self, stage: str, **more: Any) -> None:
        self.trained()
        self.judge("eval.passed", "ds-1")
        self.moved(stage, **more)

    def alarmed(self, waits_for: str = "") -> None:
        self.say("drift.detected", alarm_id="alarm-1", signal="novelty", suggested_action="collect_labels")
        if waits_for:
            (answer,) = example("turn.decided")["alarms"][:1]
            told = answer | {"alarm_id": "alarm-1", "waits_for": waits_for}
            self.say("turn.decided", alarms=[told], alarm_ids=["alarm-1"])


def training(turn: Turn) -> None:
    turn.versioned()
    turn.train("started", "ds-1")


def stuck_in_a_step(turn: Turn) -> None:
    """Its process is alive and says so for hours."""
    training(turn)
    turn.now += 2 * HOUR
    turn.train("progressed", "ds-1", step=12, since_step_seconds=7_000.0)


def review(turn: Turn) -> None:
    turn.trained()
    turn.judge("review.requested", "ds-1")


def passed(turn: Turn) -> None:
    turn.trained()
    turn.judge("eval.passed", "ds-1")


def refused(turn: Turn) -> None:
    turn.trained()
    turn.judge("eval.failed", "ds-1")


def untrained(turn: Turn) -> None:
    training(turn)
    turn.train("failed", "ds-1", superseded_by=None)


def rejected(turn: Turn, held: str | None = None) -> None:
    turn.asked()
    turn.say("dataset.rejected", turn.versioned_by, held=held)


def rolled_back(turn: Turn) -> None:
    turn.served("canary")
    generation = len(turn.events)
    turn.say("model.rolledback", model_id=model_of("ds-1"), from_stage="canary", generation=generation)


# By what hangs: the step, the alert, how long nothing happens, and a word of the fix.
PLANTED: list[tuple[Callable[[Turn], None], str, str, timedelta, str]] = [
    (Turn.alarmed, "decision", HANGS, HOUR, "curate"),
    (Turn.asked, "building", HANGS, 3 * HOUR, "curate"),
    (lambda turn: turn.say("dataset.requested", awaits_index=True), "index", HANGS, 3 * HOUR, "index"),
    (Turn.versioned, "waiting", HANGS, 7 * HOUR, "train"),
    (training, "training", HANGS, HOUR, "tunewheel run"),
    (stuck_in_a_step, "training", HANGS, timedelta(0), "tunewheel run"),
    (Turn.trained, "evaluating", HANGS, 3 * HOUR, "eval"),
    (passed, "passed", HANGS, HOUR, "registry"),
    (lambda turn: turn.served("shadow"), "shadow", HANGS, 7 * DAY + 2 * HOUR, "monitor"),
    (lambda turn: turn.served("canary"), "canary", HANGS, 7 * DAY + 2 * HOUR, "monitor"),
    (lambda turn: turn.served("production"), "production", HANGS, 6 * DAY, "monitor"),
    (review, "review", AWAITED, 2 * DAY, "tunewheel review"),
    (lambda turn: turn.alarmed("annotators"), "labels", AWAITED, 4 * DAY, "tunewheel label"),
    (lambda turn: turn.alarmed("operator"), "operator", AWAITED, 2 * DAY, "tunewheel status"),
    (lambda turn: rejected(turn, "ds-held"), "held", AWAITED, 2 * DAY, "release"),
    (rejected, "no version", FAILED, HOUR, "reasons"),
    (untrained, "untrained", FAILED, HOUR, "tunewheel run"),
    (refused, "failed evaluation", FAILED, HOUR, "verdict"),
    (rolled_back, "rolled back", FAILED, HOUR, "candidate"),
]  # fmt: skip


def gauge(plant: Callable[[Turn], None], later: timedelta) -> dict[str, float]:
    """Return for how many seconds the project has stood at each step."""
    turn, wheel = Turn(), Wheel()
    plant(turn)
    for event in turn.events:
        wheel.apply(event)
    now = turn.now + later
    return {
        step: (now - since).total_seconds() for step, since in waits_of(wheel, now).items() if since <= now
    }


@pytest.mark.parametrize(("plant", "step", "alert", "later", "fix"), PLANTED)
def test_a_hang_is_told_as_one_step(
    plant: Callable[[Turn], None], step: str, alert: str, later: timedelta, fix: str
) -> None:
    told = gauge(plant, later)
    assert set(told) == {step}
    assert step in STEPS
    assert told[step] >= later.total_seconds() - (7 * DAY).total_seconds() * (step in ("shadow", "canary"))


def test_a_trial_before_its_deadline_is_no_hang_and_the_model_behind_it_waits_in_good_order() -> None:
    assert gauge(lambda turn: turn.served("canary"), 6 * DAY) == {}

    def queued(turn: Turn) -> None:
        turn.served("canary")
        turn.version(turn.request("r-2"), "ds-2")
        turn.train("started", "ds-2")
        turn.train("completed", "ds-2")
        turn.judge("eval.passed", "ds-2")

    assert gauge(queued, 2 * DAY) == {}


@pytest.mark.parametrize("seconds", [10**10, 10**12, 10**15])
def test_no_number_of_a_spec_or_an_event_is_too_large_for_a_date(seconds: int) -> None:
    """Else one project would end the console of all."""
    policy = {"deadline_seconds": seconds, "enabled": True}

    def on_trial(turn: Turn, stage: str) -> None:
        spec = example("project.declared")["spec"] | {"rollout": {"shadow": policy, "canary": policy}}
        turn.say("project.declared", spec=spec)
        turn.served(stage)

    def stuck(turn: Turn) -> None:
        training(turn)
        turn.train("progressed", "ds-1", step=12, since_step_seconds=float(seconds))

    for stage in ("shadow", "canary"):
        assert gauge(lambda turn, stage=stage: on_trial(turn, stage), 8 * DAY) == {}
    assert set(gauge(stuck, timedelta(0))) == {"training"}


def test_each_hang_raises_one_alert_that_names_the_step_and_the_fix(tmp_path: Path) -> None:
    """By promtool: of all the rules, over an hour in which nothing moves."""
    assert len(PLANTED) >= 12
    tests: list[dict[str, Any]] = []
    for plant, step, alert, later, _ in PLANTED:
        seconds = gauge(plant, later)[step]
        labels = f'{{project="{PROJECT}",step="{step}"'
        series = [{"series": f'tunewheel_console_waits_seconds{labels},service="console",instance="{one}"}}',
                   "values": f"{seconds:.0f}+60x60"} for one in ("a", "b")]  # fmt: skip
        severity = next(rule["labels"]["severity"] for rule in ALERTS if rule["alert"] == alert)
        fired = f'ALERTS{labels},alertname="{alert}",alertstate="firing",severity="{severity}"}}'
        asked = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": "45m",
                 "exp_samples": [{"labels": fired, "value": 1}]}  # fmt: skip
        tests.append({"interval": "1m", "input_series": series, "promql_expr_test": [asked]})
    rules = [str(path) for path in sorted((FOLDER / "rules").glob("*.yaml"))]
    file = tmp_path / "hangs.yaml"
    file.write_text(json.dumps({"rule_files": rules, "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(file))


@pytest.mark.parametrize(("plant", "step", "alert", "later", "fix"), PLANTED)
def test_the_text_of_a_step_names_its_fix(
    plant: Callable[[Turn], None], step: str, alert: str, later: timedelta, fix: str
) -> None:
    (rule,) = (rule for rule in ALERTS if rule["alert"] == alert)
    assert "$labels.step" in rule["annotations"]["summary"]
    assert fix in fixes(rule)[step]


def fixes(rule: dict[str, Any]) -> dict[str, str]:
    """Return the text for each step, of a template that asks for one step after the other."""
    parts = rule["annotations"]["fix"].split('eq $labels.step "')[1:]
    return {part.split('"')[0]: part.split("}}", 1)[1].split("{{")[0] for part in parts}


def test_every_step_has_one_rule_and_one_text() -> None:
    """``fix`` holds a text for each step that a rule's expression names."""
    named: list[str] = []
    for rule in ALERTS:
        if rule["alert"] in (HANGS, AWAITED, FAILED):
            of = [step for step in STEPS if f'"{step}"' in rule["expr"] or f"{step}|" in rule["expr"]
                  or f'|{step}"' in rule["expr"]]  # fmt: skip
            assert set(fixes(rule)) == set(of), rule["alert"]
            named += of
    assert sorted(named) == sorted(STEPS)
