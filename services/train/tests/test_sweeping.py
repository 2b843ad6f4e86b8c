"""Sweeps with a real store. The first tests measure in this process, the last by ``light_worker.py``."""

from __future__ import annotations

import asyncio
import random
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested, TrainAction, TrainControl
from tunewheel_contracts.formats.sweep import SweepMethod, SweepState, TriedRun, ranked
from tunewheel_testing.adapters import BASE
from tunewheel_testing.waiting import until
from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.measurements import Measurements, lead_of
from tunewheel_train.preparation import affordable_hours
from tunewheel_train.runs.controls import Versions
from tunewheel_train.runs.runs import Result, Run
from tunewheel_train.sweeping import Sweeps, cut_off

LIGHT = runpy.run_path(str(Path(__file__).with_name("light_worker.py")))
DIVERGES, STEPS_PER_EPOCH, of_tried, plan_of = (
    LIGHT[name] for name in ("DIVERGES", "STEPS_PER_EPOCH", "of_tried", "plan_of")
)
RATES = (1e-1, 1e-2, 1e-3, 1e-4)


def asked(*rates: float, **fields: Any) -> SweepRequested:
    recipes = tuple({"learning_rate": rate} for rate in rates)
    told = {"recipes": recipes, "max_hours": 100.0, "request": "r1", **fields}
    return SweepRequested(project="helpdesk", sweep_id="sweep-1", dataset_id="ds-tiny", **told)


class Measuring:
    """Measures runs in this process. A kill comes after ``most`` measurements."""

    at_once = 1

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.trained: list[tuple[str, float]] = []
        self.forgotten: list[str] = []

    async def base_of(self, manifest: Any, lease: Any) -> Any:
        return BASE, None

    async def measure(self, run: Run, lease: Any) -> Result:
        nowhere = Path("nowhere")
        job = Job(
            run_id=run.run_id, base_model="b", train_path=nowhere, output_dir=nowhere, work_dir=nowhere,
            cache_dir=nowhere, recipe=run.recipe, tried=run.tried,
        )  # fmt: skip
        plan = plan_of(job)
        affordable_hours(job, plan)
        if run.recipe.learning_rate == DIVERGES:
            raise RunFailed(field="train.learning_rate", reason="made the loss diverge")
        if len(self.trained) == self.most:
            lease.lost.set()
            lease.check()
        self.trained.append((run.run_id, run.tried.part))
        until = round(STEPS_PER_EPOCH * run.tried.part)
        return Result(of_tried(job, until, STEPS_PER_EPOCH, ()), run.recipe, plan, STEPS_PER_EPOCH)

    async def forget(self, run_id: str) -> None:
        self.forgotten.append(run_id)


class Labelling(Measuring):
    """Measures labels too: of 40 groups of one row each, ``right[rate]`` are answered with the right label.
    A part of a run's steps gives that part of them."""

    def __init__(self, right: dict[float, int], most: int = 100) -> None:
        super().__init__(most)
        self.right = right

    async def measure(self, run: Run, lease: Any) -> Result:
        result = await super().measure(run, lease)
        right = round(self.right[run.recipe.learning_rate] * run.tried.part)
        hits = tuple((float(number < right),) for number in range(40))
        metrics = {"validation_label_accuracy": right / 40, "labelled_examples": 40.0}
        told = {"label_hits": hits, "metrics": result.outcome.metrics | metrics}
        return replace(result, outcome=result.outcome.model_copy(update=told))


async def train(made, event: SweepRequested, trainings: Any = None) -> SweepProgressed:
    sweeps = Sweeps(made.store, trainings or Measuring(), made.controls, known(made))
    return await sweeps.train(event, lease=made.lease, tell=made.tell)


def known(made) -> Versions:
    versions = Versions()
    if made.event:
        versions.versioned(new_event(made.event, source="/test"))
    return versions


async def test_a_grid_trains_every_recipe_to_its_end_and_makes_no_model(bench):
    made = await bench()
    ended = await train(made, asked(*RATES))
    assert (ended.state, ended.best, ended.validation_examples) == (SweepState.COMPLETED, "sweep-1-3", 20)
    assert [(run.part, run.steps, run.total_steps) for run in ended.runs] == [(1.0, 6, 6)] * 4
    assert ended.hours == pytest.approx(4 * 6 * 0.1)
    assert [news.measured for news in made.told] == [0, 1, 2, 3, 4]
    assert {type(news) for news in made.told} == {SweepProgressed}


async def test_halving_goes_on_with_the_better_recipes(bench):
    made = await bench()
    ended = await train(made, asked(*RATES, method="halving"))
    assert ended.best == "sweep-1-3"
    assert {run.run_id: run.part for run in ended.runs} == {
        "sweep-1-1": 1 / 9, "sweep-1-2": 1 / 3, "sweep-1-3": 1.0, "sweep-1-4": 1 / 9
    }  # fmt: skip
    # a run that goes on is not trained again from its beginning: each step counts once
    assert [run.steps for run in ended.runs] == [1, 2, 6, 1]
    assert ended.measured == 4 + 2 + 1


@pytest.mark.parametrize(
    ("right", "best", "second", "clear"),
    [
        ({1e-1: 38, 1e-2: 20, 1e-3: 10, 1e-4: 10}, "sweep-1-1", "sweep-1-2", True),
        ({1e-1: 30, 1e-2: 31, 1e-3: 10, 1e-4: 10}, "sweep-1-2", "sweep-1-1", False),
        # equal labels: the loss decides
        ({1e-1: 30, 1e-2: 30, 1e-3: 10, 1e-4: 30}, "sweep-1-2", "sweep-1-4", False),
    ],
)
async def test_the_best_has_the_best_labels_and_the_sweep_says_how_sure_that_is(
    bench, right: dict[float, int], best: str, second: str, clear: bool
):
    made = await bench()
    ended = await train(made, asked(*RATES), Labelling(right))
    assert (ended.best, ended.lead.over, ended.labelled_examples) == (best, second, 40)
    by_id = {run.run_id: run.label_accuracy for run in ended.runs}
    assert ended.lead.difference == pytest.approx(by_id[best] - by_id[second])
    assert (ended.lead.low > 0, "cannot tell" in ended.lead.words) == (clear, not clear)
    assert all(news.lead is None for news in made.told)


@pytest.mark.parametrize("killed_after", [0, 3, 6, 100])
async def test_halving_goes_on_with_the_better_labels_after_a_kill_too(bench, killed_after: int):
    made = await bench()
    right = {1e-1: 40, 1e-2: 32, 1e-3: 8, 1e-4: 4}
    if killed_after < 100:
        with pytest.raises(made.lease.Lost):
            await train(made, asked(*RATES, method="halving"), Labelling(right, killed_after))
        made.lease.lost.clear()
    ended = await train(made, asked(*RATES, method="halving"), Labelling(right))
    assert [run.part for run in ended.runs] == [1.0, 1 / 3, 1 / 9, 1 / 9]
    assert ended.best == "sweep-1-1"
    # both were measured after a third of the steps: 13 and 11 of 40 rows
    assert (ended.lead.over, ended.lead.part) == ("sweep-1-2", 1 / 3)
    assert ended.lead.difference == pytest.approx(0.05)
    assert "after 33% of the steps" in ended.lead.words


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.parametrize("method", SweepMethod)
async def test_a_sweep_that_began_without_labels_is_decided_by_loss_and_has_no_lead(
    bench, before: int, method: SweepMethod
):
    made = await bench()
    with pytest.raises(made.lease.Lost):
        await train(made, asked(*RATES, method=method), Measuring(before))
    made.lease.lost.clear()
    right = {1e-1: 40, 1e-2: 40, 1e-3: 10, 1e-4: 40}
    ended = await train(made, asked(*RATES, method=method), Labelling(right))
    assert (ended.best, ended.lead) == ("sweep-1-3", None)


async def test_rows_of_a_group_count_as_one_observation(bench):
    alike = [((1.0,) * 10,) * 5 + ((0.0,) * 10,) * 3, ((0.0,) * 10,) * 8]
    apart = [tuple((hit,) for group in one for hit in group) for one in alike]
    few, many = (lead_of(*one, over="sweep-1-2", part=1.0) for one in (alike, apart))
    assert few.difference == many.difference == pytest.approx(50 / 80)
    assert few.low < 0 < many.low
    assert lead_of((), (), over="sweep-1-2", part=1.0) is None


def test_runs_without_labels_are_ranked_by_loss_and_failed_ones_not_at_all():
    def run(number: int, loss: float | None, accuracy: float | None = None, **more: Any) -> TriedRun:
        told = {"part": 1.0, "validation_loss": loss, "label_accuracy": accuracy, **more}
        return TriedRun(run_id=f"sweep-1-{number}", changes={}, **told)

    def order(*runs: TriedRun) -> list[int]:
        return [int(one.run_id[-1]) for one in ranked(runs)]

    assert order(run(1, 0.5), run(2, 0.4), run(3, None)) == [2, 1]
    assert order(run(1, 0.5, 0.9), run(2, 0.4, 0.8), run(3, 0.1, 0.9, reason="failed")) == [1, 2]
    assert order(run(1, 0.5, 0.9), run(2, 0.4)) == [2, 1]  # measured by an earlier release
    assert order(run(1, 0.5, 0.9, part=0.5), run(2, 0.6, 0.1)) == [2, 1]
    assert order() == []


async def test_a_sweep_that_is_asked_for_twice_is_trained_once(bench):
    made = await bench()
    first = await train(made, asked(*RATES))
    made.told.clear()
    again = await train(made, asked(*RATES), Measuring(most=0))
    assert again == first
    assert new_event(again, source="/t").id == new_event(first, source="/t").id
    assert made.told == []


@pytest.mark.parametrize("killed_after", range(7))
async def test_after_a_kill_what_was_measured_is_not_measured_again(bench, killed_after: int):
    made = await bench()
    first, second = Measuring(killed_after), Measuring()
    with pytest.raises(made.lease.Lost):
        await train(made, asked(*RATES, method="halving"), first)
    assert first.forgotten == []
    made.lease.lost.clear()
    ended = await train(made, asked(*RATES, method="halving"), second)
    assert (ended.best, ended.measured) == ("sweep-1-3", 7)
    assert len({*first.trained, *second.trained}) == len(first.trained) + len(second.trained) == 7
    assert second.forgotten == [f"sweep-1-{number}" for number in range(1, 5)]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"lerning_rate": 1e-3}, "train.lerning_rate"),
        ({"rank": "many"}, "train.rank"),
        ({"batch_size": 6}, "train.micro_batch_size"),
        ({"preference": {"method": "dpo"}}, "train.preference"),
        ({"max_hours": 3}, "train.max_hours"),
    ],
)
async def test_a_wrong_recipe_is_refused_by_name(bench, changes: dict[str, Any], field: str):
    made = await bench()
    with pytest.raises(InvalidEvent) as refusal:
        await train(made, asked(1e-3).model_copy(update={"recipes": (changes,)}))
    assert refusal.value.field == field


async def test_recipes_that_are_measured_on_other_rows_are_refused(bench):
    made = await bench()
    recipes = ({"seed": 1}, {"seed": 2})
    with pytest.raises(InvalidEvent) as refusal:
        await train(made, asked(1e-3).model_copy(update={"recipes": recipes}))
    assert refusal.value.field == "train.seed"


async def test_a_version_of_another_project_is_refused(bench):
    made = await bench()
    made.event = None
    with pytest.raises(InvalidEvent) as refusal:
        await train(made, asked(1e-3))
    assert refusal.value.field == "dataset_id"


async def test_a_sweep_whose_estimate_is_above_its_ceiling_is_not_trained(bench):
    made = await bench()
    ended = await train(made, asked(*RATES, max_hours=1e-6))
    assert (ended.state, ended.field, ended.measured) == (SweepState.FAILED, "train.max_hours", 0)
    assert "estimate" in ended.reason
    assert ended.hours == 0


async def test_a_sweep_ends_at_its_ceiling_and_keeps_what_it_measured(bench):
    made = await bench()
    ended = await train(made, asked(*RATES, max_hours=1.0))  # each run takes .6 hours
    assert (ended.state, ended.field, ended.measured) == (SweepState.FAILED, "train.max_hours", 2)
    assert ended.best == "sweep-1-2"


async def test_a_recipe_that_diverges_leaves_the_others(bench):
    made = await bench()
    ended = await train(made, asked(0.5, 1e-3, method="halving"))
    assert (ended.state, ended.best) == (SweepState.COMPLETED, "sweep-1-2")
    assert (ended.runs[0].field, ended.runs[0].part) == ("train.learning_rate", 0.0)
    assert ended.runs[1].part == 1.0


class InVain(Measuring):
    """A run with the rate ``rate`` is trained for two hours, and fails."""

    def __init__(self, rate: float, field: str) -> None:
        super().__init__()
        self.rate, self.field = rate, field

    async def measure(self, run: Run, lease: Any) -> Result:
        result = await super().measure(run, lease)
        if run.recipe.learning_rate != self.rate:
            return result
        assert result.plan is not None
        a_dollar_an_hour = {"device": "h100", "dollars": result.plan.hours}
        plan = result.plan.model_copy(update=a_dollar_an_hour)
        raise RunFailed(field=self.field, reason="was in vain", seconds=7200.0, plan=plan)


@pytest.mark.parametrize(
    ("field", "hours", "state"),
    [
        ("train.learning_rate", 100.0, SweepState.COMPLETED),
        ("train.learning_rate", 2.0, SweepState.FAILED),  # nothing is left for the other run
        ("train.max_hours", 100.0, SweepState.FAILED),
        ("(run)", 100.0, SweepState.FAILED),
    ],
)
async def test_what_was_trained_in_vain_counts(bench, field: str, hours: float, state: SweepState):
    made = await bench()
    ended = await train(made, asked(1e-2, 1e-3, max_hours=hours), InVain(1e-2, field))
    assert ended.state is state
    failed, other = ended.runs
    assert (failed.seconds, failed.gpu_hours) == (7200.0, 2.0)
    assert failed.dollars == pytest.approx(2.0)
    assert ended.hours == pytest.approx(2.0 + other.seconds / 3600)
    assert ended.best == (other.run_id if state is SweepState.COMPLETED else None)


class Spending(Measuring):
    """A whole run takes ``needs[rate]`` hours. What was trained up to a ceiling is not trained again. The
    runs that are trained at once end in an order that is drawn."""

    def __init__(self, at_once: int, needs: dict[float, float], draw: random.Random) -> None:
        super().__init__()
        self.at_once, self.needs, self.draw = at_once, needs, draw
        self.running = self.beside = 0

    async def measure(self, run: Run, lease: Any) -> Result:
        assert run.tried is not None
        assert run.recipe.max_hours is not None
        self.running += 1
        self.beside = max(self.beside, self.running)
        for _ in range(self.draw.randint(1, 30)):
            await asyncio.sleep(0)
        self.running -= 1
        need = self.needs[run.recipe.learning_rate] * run.tried.part
        spent = run.tried.spent_hours
        if need > run.recipe.max_hours + 1e-9:
            seconds = (run.recipe.max_hours - spent) * 3600
            raise RunFailed(field="train.max_hours", reason="was reached", seconds=seconds)
        freed = run.recipe.model_copy(update={"max_hours": None})
        result = await super().measure(replace(run, recipe=freed), lease)
        outcome = result.outcome.model_copy(update={"wall_seconds": need * 3600})
        return replace(result, outcome=outcome)


@pytest.mark.parametrize("method", SweepMethod)
@pytest.mark.parametrize("at_once", [1, 2, 3, 8])
async def test_runs_at_once_never_use_more_than_the_ceiling_and_all_of_it_where_they_need_it(
    bench, at_once: int, method: SweepMethod
):
    made = await bench()
    draw = random.Random(at_once)
    completed = 0
    for number in range(40):
        rates = RATES[: draw.randint(2, 4)]
        needs = {rate: draw.choice([1.0, draw.uniform(0.2, 4.0)]) for rate in rates}
        trainings = Spending(at_once, needs, draw)
        most = draw.uniform(0.5, 1.4) * sum(needs.values())
        event = asked(*rates, max_hours=most, method=method).model_copy(
            update={"sweep_id": f"sweep-{number}"}
        )
        ended = await train(made, event, trainings)
        assert ended.hours <= most + 1e-6
        assert trainings.beside <= at_once
        if method is SweepMethod.GRID:
            assert trainings.beside == min(at_once, len(rates))
            assert (ended.state is SweepState.COMPLETED) == (sum(needs.values()) <= most)
        completed += ended.state is SweepState.COMPLETED
    assert 0 < completed < 40


@pytest.mark.parametrize("killed_after", range(7))
async def test_what_was_measured_beside_another_run_counts_after_a_kill(bench, killed_after: int):
    made = await bench()
    first, second = Measuring(killed_after), Measuring()
    first.at_once = second.at_once = 2
    with pytest.raises(made.lease.Lost):
        await train(made, asked(*RATES, method="halving"), first)
    made.lease.lost.clear()
    ended = await train(made, asked(*RATES, method="halving"), second)
    assert (ended.best, ended.measured) == ("sweep-1-3", 7)
    assert {*first.trained, *second.trained} == {
        (f"sweep-1-{run.run_id[-1]}", part)
        for run in ended.runs
        for part in (1 / 9, 1 / 3, 1.0)
        if part <= run.part
    }


@pytest.mark.parametrize(("killed_after", "best"), [(4, "sweep-1-2"), (6, "sweep-1-1"), (7, "sweep-1-1")])
async def test_a_halving_that_is_cut_off_tells_its_lead_by_labels(bench, killed_after: int, best: str):
    """The parts are thirds and ninths, which the names of the measurements round."""
    made = await bench()
    event = asked(*RATES, method="halving")
    right = {1e-1: 40, 1e-2: 32, 1e-3: 8, 1e-4: 4}
    whole = await train(made, event.model_copy(update={"sweep_id": "sweep-2"}), Labelling(right))
    measuring = Labelling(right, killed_after)
    if killed_after < whole.measured:
        with pytest.raises(made.lease.Lost):
            await train(made, event, measuring)
        ended = await cut_off(made.store, event, SweepState.FAILED, reason="is gone")
        assert (ended.measured, ended.best) == (killed_after, best)
    else:
        measurements = Measurements(made.store, event.model_copy(update={"sweep_id": "sweep-2"}))
        await measurements.recall()
        ended = measurements.state(SweepState.COMPLETED)
        assert ended == whole
    assert ended.lead is not None
    assert ended.labelled_examples == 40


async def test_a_sweep_all_of_whose_recipes_fail_fails(bench):
    made = await bench()
    ended = await train(made, asked(0.5))
    assert (ended.state, ended.field, ended.best) == (SweepState.FAILED, "train.learning_rate", None)


async def test_processes_go_on_from_checkpoints_and_leave_nothing(bench):
    made = await bench()
    ended = await train(made, asked(1e-2, 1e-3, method="halving"), made.trainings)
    assert [(run.part, run.steps, run.total_steps) for run in ended.runs] == [(1 / 3, 2, 6), (1.0, 6, 6)]
    assert ended.best == "sweep-1-2"
    assert await made.store.list("adapters") == await made.store.list("runs") == []
    assert list(made.settings.runs_dir.glob("*")) == []


async def test_a_sweep_is_cancelled_by_its_id(bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIGHT_WAIT", "1")  # the first run stays in its middle
    made = await bench()
    task = asyncio.create_task(train(made, asked(*RATES), made.trainings))
    await until(lambda: list(made.settings.runs_dir.glob("*/*/checkpoint-*")))
    cancel = TrainControl(project="helpdesk", run_id="sweep-1", action=TrainAction.CANCEL, request="enough")
    made.controls.apply(new_event(cancel, source="/test"))
    ended = await task
    assert (ended.state, ended.measured, ended.field) == (SweepState.CANCELLED, 0, "")
    assert ended.hours > 0  # the run that was cancelled was trained for a while
    assert await made.store.list("runs") == []


async def test_a_run_of_a_turn_goes_first_and_the_sweep_goes_on(bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIGHT_WAIT", "1")
    made = await bench()
    trainings = made.trainings
    sweeps = Sweeps(made.store, trainings, made.controls, known(made))
    tried = asyncio.create_task(sweeps.train(asked(1e-3), lease=made.lease, tell=made.tell))
    await until(lambda: list(made.settings.runs_dir.glob("*/*/checkpoint-*")))
    monkeypatch.delenv("LIGHT_WAIT")
    completed = await trainings.train(made.event, lease=made.lease, tell=made.tell)
    assert completed.type == "train.completed"
    assert not tried.done()
    ended = await tried
    assert (ended.state, ended.runs[0].steps) == (SweepState.COMPLETED, 6)
