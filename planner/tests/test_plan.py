from __future__ import annotations

from dataclasses import replace

import pytest
from tunewheel_contracts.formats.methods import TrainMethod, parameters_named
from tunewheel_contracts.formats.plan import Interval, TrainPlan
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_planner.calibration import Calibration, Correction, Outcome, key
from tunewheel_planner.devices import Device, catalogue, processor
from tunewheel_planner.plan import DatasetStats, hold_back, make_plan, processes_of
from tunewheel_planner.shapes import KNOWN, LINEARS, ModelShape
from tunewheel_planner.speed import Work, seconds

STATS = DatasetStats(examples=1000, tokens=400_000, longest=800, learnt=100_000, prefix=100)
PAIRS = DatasetStats(examples=500, tokens=300_000, longest=700, learnt=80_000, sequences=1000)
SHAPE_8B = KNOWN["meta-llama/Llama-3.1-8B-Instruct"]


def device(name: str) -> Device:
    found = catalogue().named(name)
    assert found is not None
    return found


def plan(
    shape: ModelShape = SHAPE_8B,
    on: str = "h100-80",
    correction: Correction = Correction(),
    **recipe: object,
) -> TrainPlan:
    return make_plan(shape, STATS, TrainSpec.model_validate(recipe), device(on), correction=correction)


def test_what_fits_is_planned_as_written() -> None:
    found = plan(method="qlora")
    assert found.fits
    assert (found.micro_batch_size, found.gradient_checkpointing, found.advice) == (8, False, "")
    assert found.tokens == 800_000
    assert found.peak_bytes == found.memory.total < found.available_bytes


LONG = DatasetStats(examples=1000, tokens=4_096_000, longest=4096, learnt=1_000_000)
SHORT = DatasetStats(examples=1000, tokens=400_000, longest=800, learnt=100_000)
PROMPT = DatasetStats(examples=1000, tokens=1_000_000, longest=1200, learnt=60_000, prefix=900)
MISTRAL = KNOWN["mistralai/Mistral-7B-Instruct-v0.3"]


@pytest.mark.parametrize(
    ("shape", "stats", "on", "method", "form"),
    [
        # recomputing instead costs a third of the speed
        (SHAPE_8B, LONG, "h100-80", "lora", (2, False)),
        (MISTRAL, SHORT, "rtx-4090", "lora", (1, False)),
        # larger micro-batches expand the 4-bit weights less often: that saves more than recomputing costs
        (SHAPE_8B, STATS, "l4", "qlora", (8, True)),
        # nothing smaller fits without recomputing; then the largest micro-batch that fits is as fast as any
        (SHAPE_8B, STATS, "t4", "qlora", (4, True)),
        # a shared beginning is computed once per micro-batch, so that small ones cost more than recomputing
        (SHAPE_8B, PROMPT, "l4", "qlora", (8, True)),
    ],
)
def test_of_the_forms_that_fit_the_fastest_is_planned(
    shape: ModelShape, stats: DatasetStats, on: str, method: str, form: tuple[int, bool]
) -> None:
    recipe = TrainSpec.model_validate({"method": method})
    found = make_plan(shape, stats, recipe, device(on))
    assert found.fits
    assert (found.micro_batch_size, found.gradient_checkpointing) == form


def test_smaller_micro_batches_make_the_plan_half_as_fast_again() -> None:
    speeds = [
        make_plan(shape, stats, TrainSpec(), device(on)).tokens_per_second.expected
        for shape, stats, on in ((SHAPE_8B, LONG, "h100-80"), (MISTRAL, SHORT, "rtx-4090"))
    ]
    recomputed = []
    for shape, stats, on in ((SHAPE_8B, LONG, "h100-80"), (MISTRAL, SHORT, "rtx-4090")):
        work = Work(shape, TrainMethod.LORA, stats.tokens / stats.examples * 8, round(stats.mean), 0.25,
                    gradient_checkpointing=True)  # fmt: skip
        recomputed.append(work.tokens / seconds(device(on), work))
    assert [a / b for a, b in zip(speeds, recomputed, strict=True)] == pytest.approx([1.5, 1.5], rel=0.1)


def test_full_is_cut_smaller_before_it_is_recomputed() -> None:
    shape = KNOWN["meta-llama/Llama-3.2-1B-Instruct"]
    found = make_plan(shape, LONG, TrainSpec(method=TrainMethod.FULL), device("l40s"))
    assert (found.micro_batch_size, found.gradient_checkpointing, found.fits) == (2, False, True)


@pytest.mark.parametrize(
    ("method", "on", "advice"),
    [("full", "h100-80", "method lora"), ("lora", "t4", "method qlora"), ("lora", "t4", "16 GB are needed")],
)
def test_what_fits_nowhere_says_what_is_missing_and_what_to_do(method: str, on: str, advice: str) -> None:
    found = plan(on=on, method=method)
    assert not found.fits
    if "needed" in advice:
        assert "GB are needed, t4 has 16" in found.advice
    else:
        assert advice in found.advice


def test_a_card_without_bf16_is_planned_in_fp32_as_it_is_trained() -> None:
    shape = KNOWN["meta-llama/Llama-3.2-1B-Instruct"]
    old, asked = plan(shape, on="t4"), make_plan(shape, STATS, TrainSpec(), device("t4"), precision="float32")
    assert old == asked
    half = make_plan(shape, STATS, TrainSpec(), device("t4"), precision="bfloat16")
    assert old.memory.weights == 2 * half.memory.weights
    assert old.tokens_per_second.expected < half.tokens_per_second.expected * 8.1 / 65 * 1.5


def test_hours_and_dollars_follow_from_speed_and_price() -> None:
    found = plan()
    assert found.hours.low < found.hours.expected < found.hours.high
    adapter = SHAPE_8B.adapter_parameters(16)
    steps = 800_000 / found.tokens_per_second.expected
    # one checkpoint at the end, and others in a small share of the time
    beside = 20 + 2 * SHAPE_8B.parameters / 1e9 + 12 * adapter / 200e6 + 0.03 * steps
    assert found.hours.expected * 3600 == pytest.approx(steps + beside)
    once = plan(checkpoint_steps=10**6)
    assert (found.hours.expected - once.hours.expected) * 3600 == pytest.approx(0.03 * steps)
    fetched = make_plan(SHAPE_8B, STATS, TrainSpec(), device("h100-80"), download=True).hours.expected
    assert (fetched - found.hours.expected) * 3600 == pytest.approx(2 * SHAPE_8B.parameters / 100e6)
    low, high = device("h100-80").dollars_per_hour or (0, 0)
    assert found.dollars == Interval(
        low=found.hours.low * low,
        expected=found.hours.expected * (low * high) ** 0.5,
        high=found.hours.high * high,
    )
    on_cpu = make_plan(
        SHAPE_8B, STATS, TrainSpec(), processor(memory_bytes=64 << 30, teraflops=1, bfloat16=True)
    )
    assert on_cpu.dollars is None


def test_a_shared_beginning_saves_time() -> None:
    alone = DatasetStats(examples=1000, tokens=400_000, longest=800, learnt=100_000)
    apart = make_plan(SHAPE_8B, alone, TrainSpec(), device("h100-80"))
    assert plan().tokens_per_second.expected > apart.tokens_per_second.expected * 1.1


def test_full_and_qlora_are_slower_than_lora() -> None:
    small = KNOWN["meta-llama/Llama-3.2-1B-Instruct"]
    speed = {m: plan(small, method=m).tokens_per_second.expected for m in TrainMethod}
    assert speed[TrainMethod.LORA] > max(speed[TrainMethod.FULL], speed[TrainMethod.QLORA])
    # the base is expanded from 4 bits in each pass, so that few tokens pay most
    on = device("a100-80")
    qlora, lora = (
        [seconds(on, Work(MISTRAL, method, tokens, 256)) for tokens in (1024, 8192)]
        for method in (TrainMethod.QLORA, TrainMethod.LORA)
    )
    assert qlora[0] / lora[0] > 1.5 > 1.1 > qlora[1] / lora[1] > 1


def test_short_rows_wait_for_the_host_and_long_ones_for_the_card() -> None:
    on = device("h100-80")
    short, twice, long, longer = (
        seconds(on, Work(MISTRAL, TrainMethod.LORA, tokens, 128)) for tokens in (128, 256, 8192, 16384)
    )
    assert short == twice
    assert longer == pytest.approx(2 * long, rel=0.01)


def test_earlier_runs_correct_speed_and_memory_and_narrow_the_interval() -> None:
    first = plan()
    outcome = Outcome(first, first.tokens_per_second.expected * 1.2, round(first.memory.total * 0.9))
    later = plan(
        correction=Calibration([outcome] * 3).corrections(TrainMethod.LORA)[
            key("h100-80", SHAPE_8B.parameters)
        ]
    )
    assert later.tokens_per_second.expected == pytest.approx(first.tokens_per_second.expected * 1.2)
    assert later.peak_bytes == pytest.approx(first.memory.total * 0.9, rel=1e-6)
    assert later.calibrated_by == 3
    width = [p.tokens_per_second.high / p.tokens_per_second.low for p in (first, later)]
    assert width[1] < width[0]
    assert Calibration([outcome]).corrections(TrainMethod.QLORA) == {}


@pytest.mark.parametrize("wrong", [{"examples": 0}, {"tokens": 3, "examples": 4}, {"longest": 0}])
def test_a_dataset_of_nothing_cannot_be_planned_for(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="has examples"):
        DatasetStats(**({"examples": 10, "tokens": 100, "longest": 20, "learnt": 10} | wrong))


def test_every_known_model_has_a_plan_for_every_method_and_device() -> None:
    plans = [
        make_plan(shape, STATS, TrainSpec(method=method), on)
        for shape in KNOWN.values()
        for method in TrainMethod
        for on in catalogue().devices
    ]
    assert len(plans) >= 9 * 3 * 8
    assert all(p.fits == (p.peak_bytes <= p.available_bytes * 0.93) for p in plans)
    assert all(bool(p.advice) != p.fits for p in plans)


def test_training_on_preferences_is_planned_with_what_comes_before() -> None:
    def planned(pairs: DatasetStats | None, **preference: object) -> TrainPlan:
        recipe = TrainSpec.model_validate({"micro_batch_size": 2, "preference": preference})
        return make_plan(SHAPE_8B, STATS, recipe, device("h100-80"), pairs=pairs)

    examples, alone, both = planned(None), planned(PAIRS, alone=True), planned(PAIRS)
    assert (examples.tokens, alone.tokens, both.tokens) == (800_000, 300_000, 1_100_000)
    longest = max(examples.hours.expected, alone.hours.expected)
    assert longest < both.hours.expected < examples.hours.expected + alone.hours.expected
    slow, fast = sorted(p.tokens_per_second.expected for p in (examples, alone))
    assert slow < both.tokens_per_second.expected < fast
    assert both.peak_bytes == max(examples.peak_bytes, alone.peak_bytes) == alone.peak_bytes
    assert alone.memory.adapters == 2 * examples.memory.adapters  # the reference beside it


def test_each_preference_method_is_as_slow_as_its_further_passes() -> None:
    speeds = {}
    for method in ("orpo", "dpo", "kto"):
        preference = {"method": method, "alone": True}
        recipe = TrainSpec.model_validate({"micro_batch_size": 2, "preference": preference})
        plan = make_plan(SHAPE_8B, STATS, recipe, device("h100-80"), pairs=PAIRS)
        speeds[method] = plan.tokens_per_second.expected
    # a further pass is a third of a step by memory traffic and a half by arithmetic
    assert 4 / 3 - 0.01 < speeds["orpo"] / speeds["dpo"] < 3 / 2
    assert 2 - 0.01 < speeds["orpo"] / speeds["kto"] < 5 / 2


def test_a_pair_is_two_sequences_of_a_micro_batch() -> None:
    rows, of_one = PAIRS.rows(4), STATS.rows(4)
    assert (rows.tokens, rows.longest) == (8 * 700, 700)
    assert of_one.tokens == 100 + 4 * 700


def test_fewer_adapted_layers_take_less_memory_and_time() -> None:
    every, two = plan(), plan(target_modules=["q_proj", "v_proj"])
    assert two.memory.adapters == 4 * SHAPE_8B.adapter_parameters(16, ["q_proj", "v_proj"])
    assert two.memory.adapters < every.memory.adapters / 5
    assert two.memory.optimizer < every.memory.optimizer / 5
    assert two.memory.activations < every.memory.activations
    assert two.tokens_per_second.expected > every.tokens_per_second.expected
    named = plan(target_modules=[name.rpartition(".")[2] for name in LINEARS])
    assert named == every


def test_what_each_process_holds_a_part_of_fits_where_the_whole_would_not() -> None:
    def sharded(count: int, **recipe: object) -> TrainPlan:
        spec = TrainSpec.model_validate(recipe)
        return make_plan(
            KNOWN["meta-llama/Llama-3.1-70B-Instruct"], STATS, spec, device("h100-80"),
            processes=count, shards=count,
        )  # fmt: skip

    assert not sharded(1).fits
    cut = sharded(8)
    assert (cut.fits, cut.micro_batch_size, cut.advice) == (True, 8, "")
    assert cut.memory.weights < sharded(1).memory.weights / 4
    assert cut.memory.adapters == sharded(1).memory.adapters
    whole, full = plan(method="full"), make_plan(
        SHAPE_8B, STATS, TrainSpec(method=TrainMethod.FULL), device("h100-80"), processes=4, shards=4
    )  # fmt: skip
    assert full.memory.optimizer * 4 == pytest.approx(whole.memory.optimizer, rel=1e-6)
    assert full.fits


def test_processes_share_a_step_its_time_and_a_processors_memory() -> None:
    one, four = (
        make_plan(SHAPE_8B, STATS, TrainSpec(micro_batch_size=8), device("h100-80"), processes=count)
        for count in (1, 4)
    )
    assert four.memory.activations < one.memory.activations / 3  # two of a step's eight examples each
    # two examples are too few to keep such a card busy
    assert (
        one.tokens_per_second.expected < four.tokens_per_second.expected < 2 * one.tokens_per_second.expected
    )
    wide = [
        make_plan(SHAPE_8B, STATS, TrainSpec(batch_size=64), device("h100-80"), processes=count)
        for count in (1, 4)
    ]
    assert wide[1].tokens_per_second.expected > 3.5 * wide[0].tokens_per_second.expected
    assert four.available_bytes == one.available_bytes
    assert four.dollars is not None
    assert one.dollars is not None
    assert four.dollars.expected == pytest.approx(
        one.dollars.expected * 4 * four.hours.expected / one.hours.expected
    )
    cpu = processor(memory_bytes=64 << 30, teraflops=1, bfloat16=True)
    assert make_plan(SHAPE_8B, STATS, TrainSpec(), cpu, processes=2).available_bytes == 32 << 30


def test_validating_lengthens_a_run_by_its_share() -> None:
    held = hold_back(STATS, TrainSpec())
    found = make_plan(SHAPE_8B, held, TrainSpec(), device("h100-80"))
    assert found.validation == held.validation is not None
    without = make_plan(SHAPE_8B, replace(held, validation=None), TrainSpec(), device("h100-80"))
    trained = found.tokens / found.tokens_per_second.expected / 3600
    more = found.hours.expected - without.hours.expected
    # with the checkpoints of the longer time
    assert more / trained == pytest.approx(found.validation.share * 1.03)


@pytest.mark.parametrize(
    ("changes", "parameters", "gib", "threads", "processes"),
    [
        ({}, 135_000_000, 16, 2, 2),
        ({}, 135_000_000, 16, 1, 1),
        ({}, 135_000_000, 4, 2, 1),
        ({}, 8_000_000_000, 48, 16, 1),
        ({}, 8_000_000_000, 96, 16, 2),
        ({}, None, 96, 16, 1),
        ({"method": "qlora"}, 135_000_000, 16, 8, 2),
        ({"method": "full"}, 135_000_000, 16, 2, 1),
        ({"batch_size": 1, "micro_batch_size": 1}, 135_000_000, 16, 2, 1),
    ],
)
def test_two_processes_train_an_adapter_on_a_processor_if_two_copies_of_the_base_fit(
    changes, parameters, gib, threads, processes
) -> None:
    recipe = TrainSpec.model_validate(changes)
    found = processes_of(recipe, parameters, memory_bytes=gib << 30, threads=threads, precision="bfloat16")
    assert found == processes


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.494), ("Qwen/Qwen3-0.6B", 0.596), ("google/gemma-3-1b-it", 1.0),
        ("HuggingFaceTB/SmolLM3-3B", 3.08), ("microsoft/Phi-4-mini-instruct", 3.84), ("Qwen/Qwen3-8B", 8.19),
        ("microsoft/phi-4", 14.7), ("mistralai/Mistral-Small-24B-Instruct-2501", 23.6),
        ("google/gemma-3-27b-it", 27.0), ("Qwen/Qwen3-32B", 32.8), ("Qwen/Qwen2.5-72B-Instruct", 72.7),
    ],
)  # fmt: skip
def test_known_shapes_have_the_parameters_that_their_makers_state(name: str, billions: float) -> None:
    assert KNOWN[name].parameters == pytest.approx(billions * 1e9, rel=0.01)


def test_known_names_state_the_size_of_their_shape() -> None:
    for name, shape in KNOWN.items():
        if (stated := parameters_named(name)) is not None:
            assert shape.parameters == pytest.approx(stated, rel=0.35), name


@pytest.mark.parametrize(
    ("name", "billions", "active"),
    [
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 30.5, 3.3), ("Qwen/Qwen3-235B-A22B", 235, 22),
        ("openai/gpt-oss-20b", 20.9, 3.6), ("openai/gpt-oss-120b", 116.8, 5.1),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 46.7, 12.9),
    ],
)  # fmt: skip
def test_a_mixture_takes_the_memory_of_all_experts_and_the_time_of_some(
    name: str, billions: float, active: float
) -> None:
    shape = KNOWN[name]
    assert shape.parameters == pytest.approx(billions * 1e9, rel=0.02)
    # makers count the embeddings of a token once or twice
    head = shape.vocabulary * shape.hidden
    assert shape.active_parameters < active * 1e9 * 1.02
    assert shape.active_parameters + 2 * head > active * 1e9 * 0.98
    work = Work(shape, TrainMethod.LORA, 4096)
    assert (
        work.operations
        < 0.4 * replace(work, shape=shape.model_copy(update={"active": shape.experts})).operations
    )


def test_forty_bases_of_2025_and_later_are_known() -> None:
    recent = ("Qwen3", "gemma-3", "SmolLM3", "Phi-4-", "2501", "gpt-oss", "R1-Distill", "QwQ", "-1M", "2512",
              "R1-0528", "Nemotron")  # fmt: skip
    assert sum(any(part in name for part in recent) for name in KNOWN) >= 40
