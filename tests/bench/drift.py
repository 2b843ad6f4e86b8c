"""What the monitor's detectors see, how soon, and how often they cry wolf.

Questions are real: banking77's (some intents held back as new) and, as another world, nlupp's hotels. Known
traffic is drawn from prompts that are not in the reference. A shift of s replaces that share of the
traffic. What answers are like is simulated, since no model runs here: a label is that of the nearest
question of the reference, which is a fair stand-in for a classifier, and its accuracy says whether an alarm
meant harm.

    make bench NAME=drift ARGS="--only power --draws 5"

All parts take some minutes on two cores. A draw of intents is embedded and scored once; every stream of it is
made of the same items. Each task has a seed of its own, so figures do not depend on the number of processes.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import multiprocessing
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: the processes would fight for the cores

import numpy as np
from curves import write_curves
from report import BENCH_DIR, write_report
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_embedding.static import StaticEmbedder, Vectors, unit_length
from tunewheel_monitor.coverage import Coverage
from tunewheel_monitor.detectors import DETECTORS, Detector, Opening, State
from tunewheel_monitor.detectors.clusters import encoded
from tunewheel_monitor.detectors.feedback import Feedback

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
WINDOW = 100
PROMPTS = 600
CALM = 2_000
"""Known prompts before a shift begins."""
SHIFTS = (0.0, 0.05, 0.1, 0.2, 0.5)
HOTELS = 0
"""Instead of a number of new intents: the new questions are nlupp's."""
NEW = ((1, 2, 8, HOTELS), (20,))
"""Numbers of new intents. Those of a group share a draw: as many intents as the most of them needs are held
back, so that the reference is fitted once."""
EIGHT = NEW[0]
ENDS_AFTER = 3
"""Windows without drift after which the monitor ends an alarm."""
PARTS = ("power", "answers", "false", "turned", "thumbs", "cost")
MOST_SPARE = 2_000
"""Of the train split's prompts that are not in the reference: known traffic, beside the test split's."""
START = datetime(2026, 1, 1, tzinfo=UTC)
DRIFT = DriftSpec(window=WINDOW)
INPUT = tuple(detector for detector in DETECTORS if detector.family == "input")
OTHERS = tuple(detector for detector in DETECTORS if detector.family != "input")
Rng = np.random.Generator
Stream = Sequence[int]


@dataclass(frozen=True)
class Questions:
    """Real prompts, embedded: known ones of two splits, and another world's."""

    vectors: Vectors
    intents: Any
    held_out: Any
    """(prompts,): of banking77's own test split."""
    hotels: Any
    """(prompts,): of nlupp."""


@dataclass
class Scene:
    """A reference, the prompts that traffic may hold, and how the reference scores them."""

    coverage: Coverage
    known: Any
    """Which ``items`` are of the reference's intents; none is in the reference."""
    new: dict[int, Any]
    """By number of new intents: which ``items`` are of those."""
    items: list[InferenceScored]
    intents: Any
    """By item."""
    right: Any
    """By item: whether the nearest question of the reference has the prompt's intent."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--references", type=int, nargs="+", default=[1_000, 8_000])
    parser.add_argument("--windows", type=int, default=10_000, help="of known traffic")
    parser.add_argument("--ratings", type=int, default=10_000, help="runs of ratings that do not change")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    if not (DATA / "banking77").is_dir():
        sys.exit(f"{DATA / 'banking77'} is missing: the benchmark needs it there")
    questions, per_second = load()
    found: dict[str, Any] = {}
    harm: dict[str, list[bool]] = defaultdict(list)
    lines: dict[str, list[float]] = {}
    # forked processes share the embedded questions
    with multiprocessing.get_context("fork").Pool(given.jobs, _begin, (questions,)) as pool:
        if "power" in given.only:
            for size in given.references:
                for group in NEW:
                    power(pool, size, group, given.draws, found, harm, lines)
        if "answers" in given.only:
            found["answers and ratings, simulated"] = answers_power(pool, given.draws)
        if "false" in given.only:
            found["known traffic"] = false_alarms(pool, given.references, given.windows)
        if "turned" in given.only:
            tasks = [(17, given.references[0], draw) for draw in range(given.draws)]
            drawn = pool.starmap(_turned_over, tasks, chunksize=1)
            found["mixtures that turn over"] = told([first for first, _ in drawn], INPUT)
            collect(harm, drawn)
            say("mixtures that turn over", found["mixtures that turn over"])
        if "thumbs" in given.only:
            found["thumbs down, from 1,000 ratings at 10 %"] = thumbs(pool, given.ratings)
    BENCH_DIR.mkdir(parents=True, exist_ok=True)
    if lines:
        write_curves(
            BENCH_DIR / "drift.svg", lines, of="share of draws that alarmed by window of 100 prompts"
        )
    write_report(
        "drift",
        packages=("numpy", "tokenizers"),
        contenders=found,
        ratios={},
        alarm_meant_harm={name: summary(cases) for name, cases in harm.items()},
        texts_embedded_per_second=round(per_second),
        microseconds_per_item=cost(questions, np.random.default_rng(17)) if "cost" in given.only else {},
        drift_p_value=DRIFT.p_value,
        draws=given.draws,
    )


_shared: list[Questions] = []


def _begin(questions: Questions) -> None:
    _shared[:] = [questions]


def say(name: str, figures: Any) -> None:
    print(name, json.dumps(figures), file=sys.stderr, flush=True)


def load() -> tuple[Questions, float]:
    texts: list[str] = []
    intents: list[str] = []
    splits: list[int] = []
    for number, split in enumerate(("train", "test")):
        with (DATA / "banking77" / f"{split}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                texts.append(row["text"])
                intents.append(row["category"])
                splits.append(number)
    for path in sorted((DATA / "nlupp" / "hotels").glob("fold*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            texts.append(row["text"])
            intents.append("hotels")
            splits.append(2)
    embedder = StaticEmbedder()
    embedder.embed(["warm up"])
    started = time.perf_counter()
    vectors = embedder.embed(texts)
    per_second = len(texts) / (time.perf_counter() - started)
    kinds = np.array(splits)
    return Questions(vectors, np.array(intents), kinds == 1, kinds == 2), per_second


def scene(questions: Questions, size: int, group: Sequence[int], rng: Rng) -> Scene:
    """Draw which intents are new, and a reference of the others from banking77's train split."""
    banking = np.unique(questions.intents[~questions.hotels])
    fresh = rng.choice(banking, max(group), replace=False)
    is_known = ~np.isin(questions.intents, fresh) & ~questions.hotels
    pool = rng.permutation(np.where(is_known & ~questions.held_out)[0])
    chosen = pool[:size]
    coverage = Coverage.fit(questions.vectors[chosen], questions.intents[chosen].tolist())
    known = np.concatenate([np.where(is_known & questions.held_out)[0], pool[size:][:MOST_SPARE]])
    asked = np.concatenate([known, np.where(~is_known)[0]])
    scores, units = coverage.score(questions.vectors[asked]), unit_length(questions.vectors[asked])
    labels = questions.intents[chosen][scores.nearest]
    items = [
        InferenceScored.model_construct(
            project="desk", completion_id=f"c-{n}", scored=f"c-{n}", model_id="m", role=RouteRole.PRODUCTION,
            at=START, dataset_id="ds-1", cell=int(scores.cell[n]), novelty=float(scores.novelty[n]),
            novel=bool(scores.novel[n]), vector=encoded(units[n]) if scores.novel[n] else None,
            label=str(labels[n]),
        )
        for n in range(len(asked))
    ]  # fmt: skip
    intents = questions.intents[asked]
    new = {
        count: np.where(np.isin(intents, fresh[:count]) if count else questions.hotels[asked])[0]
        for count in group
    }
    return Scene(coverage, np.arange(len(known)), new, items, intents, labels == intents)


def power(
    pool: Any, size: int, group: Sequence[int], draws: int, found: dict[str, Any],
    harm: dict[str, list[bool]], lines: dict[str, list[float]],
) -> None:  # fmt: skip
    """Find by shift and detector the share of draws that alarmed, and the median of prompts until then: after
    ``CALM`` known prompts, and from the version's first prompt."""
    drawn = pool.starmap(_power, [(size, group, draw) for draw in range(draws)], chunksize=1)
    for new in group:
        kind = f"{new} new intents" if new else "hotels"
        after = {shift: [one[new, shift][0] for one in drawn] for shift in SHIFTS}
        at_once = {shift: [one[new, shift][1] for one in drawn] for shift in SHIFTS}
        collect(harm, [one[new, shift][::2] for one in drawn for shift in SHIFTS[1:]])
        for shift in SHIFTS[1:] if new in (8, HOTELS) else ():
            ends = [min(alarmed.values(), default=PROMPTS + 1) for alarmed in after[shift]]
            lines[f"{size}, {kind}, {shift:.0%}"] = [
                float(np.mean([end <= prompts for end in ends])) for prompts in range(0, PROMPTS + 1, WINDOW)
            ]
        found[f"reference {size}, {kind}"] = {
            f"{shift:.0%}": told(after[shift], INPUT) for shift in SHIFTS
        } | {"from the first prompt": {f"{shift:.0%}": told(at_once[shift], INPUT) for shift in SHIFTS}}
        say(f"reference {size}, {kind}", found[f"reference {size}, {kind}"])


def _power(
    size: int, group: Sequence[int], draw: int
) -> dict[tuple[int, float], tuple[dict[str, int], dict[str, int], bool]]:
    """Return by number of new intents and shift the first alarms after known prompts, those from the first
    prompt on, and whether answers were worse."""
    rng = np.random.default_rng((17, size, *group, draw))
    drawn = scene(_shared[0], size, group, rng)
    calm = {detector.name: detector.open(opening(drawn)) for detector in INPUT}
    alarms_in(INPUT, calm, (drawn.items[n] for n in shifted(drawn, CALM, group[0], 0.0, rng)))
    found: dict[tuple[int, float], tuple[dict[str, int], dict[str, int], bool]] = {}
    for new in group:
        for shift in SHIFTS:
            stream = shifted(drawn, PROMPTS, new, shift, rng)
            found[new, shift] = (
                alarms_in(INPUT, copy.deepcopy(calm), (drawn.items[n] for n in stream)),
                first_alarms(INPUT, opening(drawn), (drawn.items[n] for n in stream)),
                worse(drawn, stream),
            )
    return found


def collect(harm: dict[str, list[bool]], alarmed: Iterable[tuple[dict[str, int], bool]]) -> None:
    """Note for each alarm whether answers were worse."""
    for names, was_worse in alarmed:
        for name in names:
            harm[name].append(was_worse)


def shifted(drawn: Scene, count: int, new: int, shift: float, rng: Rng) -> Stream:
    """Draw prompts, a share ``shift`` of them of ``new`` new intents, without repetition as far as there are
    any."""
    fresh = rng.random(count) < shift
    known = rng.permutation(drawn.known)
    others = np.resize(rng.permutation(drawn.new[new]), count)
    return np.where(fresh, others, np.resize(known, count)).tolist()


def opening(drawn: Scene) -> Opening:
    return Opening(drift=DRIFT, dataset_id="ds-1", coverage=drawn.coverage.facts)


def first_alarms(
    detectors: Sequence[Detector], begun: Opening, items: Iterable[InferenceScored]
) -> dict[str, int]:
    """Return how many answers, or ratings, each detector had seen at its first alarm."""
    states = {detector.name: detector.open(begun) for detector in detectors}
    return alarms_in(detectors, states, items)


def alarms_in(
    detectors: Sequence[Detector],
    states: dict[str, State],
    items: Iterable[InferenceScored],
    counts: dict[str, int] | None = None,
) -> dict[str, int]:
    """Let the detectors see what comes and look as the monitor does: at windows of answers, those of ratings
    at windows of ratings. ``counts`` is told how many alarms each began: an alarm ends after ``ENDS_AFTER``
    windows without drift, as in the monitor, and another may begin."""
    alarmed: dict[str, int] = {}
    quiet: dict[str, int] = defaultdict(lambda: ENDS_AFTER)
    seen = {"completion": 0, "rating": 0}
    for item in items:
        seen[item.of] += 1
        for detector in detectors:
            detector.see(states[detector.name], item)
        if seen[item.of] % WINDOW:
            continue
        for detector in detectors:
            if (detector.family == "feedback") is (item.of == "rating"):
                finding = detector.look(states[detector.name])
                if finding is None or not finding.drifted:
                    quiet[detector.name] += 1
                    continue
                alarmed.setdefault(detector.name, seen[item.of])
                if counts is not None and quiet[detector.name] >= ENDS_AFTER:
                    counts[detector.name] = counts.get(detector.name, 0) + 1
                quiet[detector.name] = 0
    return alarmed


def told(first: Sequence[dict[str, int]], detectors: Sequence[Detector]) -> dict[str, Any]:
    """Return power and median delay by detector, and of all together."""
    by_name = {d.name: [alarmed[d.name] for alarmed in first if d.name in alarmed] for d in detectors}
    by_name["any"] = [min(alarmed.values()) for alarmed in first if alarmed]
    return {
        name: {"power": round(len(ends) / len(first), 3)}
        | ({"prompts": int(np.median(ends))} if ends else {})
        for name, ends in by_name.items()
    }


def worse(drawn: Scene, stream: Stream, *, points: float = 0.03) -> bool:
    """Whether the nearest neighbour's label was right less often in the stream than on known prompts."""
    return float(drawn.right[list(stream)].mean()) < float(drawn.right[drawn.known].mean()) - points


def summary(cases: Sequence[bool]) -> dict[str, Any]:
    return {"alarms": len(cases), "accuracy was worse": round(float(np.mean(cases)), 3)}


def answered(rng: Rng, items: Iterable[InferenceScored], bad: float = 0.0) -> Iterator[InferenceScored]:
    """Give questions an answer of a calm day, of which a share ``bad`` is bad in every way; one in ten is
    rated."""
    for number, item in enumerate(items):
        off = rng.random() < bad
        chance = rng.random(8)
        tokens = int(rng.lognormal(3.5 + off, 0.6)) + 1
        failed = chance[0] < 0.005 + bad
        more = {
            "completion_id": f"c-{number}", "completion_tokens": tokens, "truncated": tokens > 150,
            "outcome": "failed" if failed else "answered", "fault": "engine" if failed else None,
            "latency_seconds": float(rng.lognormal(0, 0.4)) * (3 if off else 1),
            "format_valid": not (off or chance[1] < 0.05), "refusal": bool(off or chance[2] < 0.05),
            "repetition": 0.6 if off or chance[3] < 0.03 else 0.02, "invented": int(off or chance[4] < 0.08),
            "label": "other" if off else item.label,
        }  # fmt: skip
        yield item.model_copy(update=more)
        if chance[5] < 0.1:
            yield item.model_copy(
                update={
                    "of": "rating", "rating": "down" if off or chance[6] < 0.1 else "up", "client": "app",
                    "user": f"u-{rng.integers(10**9)}", "at": START + timedelta(minutes=number),
                    "corrected": bool(off or chance[7] < 0.05), "agrees": not (off or chance[7] < 0.1),
                }
            )  # fmt: skip


def plain(rng: Rng, count: int) -> list[InferenceScored]:
    """Return questions that bear a label alone, by Zipf's law."""
    shares = 1 / np.arange(1, 21)
    labels = rng.choice(20, count, p=shares / shares.sum())
    made = [
        InferenceScored.model_construct(
            project="desk", completion_id="c", scored="c", model_id="m", role=RouteRole.PRODUCTION, at=START,
            label=f"label-{label}",
        )
        for label in range(20)
    ]  # fmt: skip
    return [made[label] for label in labels]


def answers_power(pool: Any, draws: int) -> dict[str, Any]:
    """Return by share of bad answers what the detectors of answers and ratings see in 2,000 answers and 200
    ratings, after 10,000 calm answers of the version before."""
    rng = np.random.default_rng(18)
    calm = {detector.name: detector.open(Opening(drift=DRIFT)) for detector in OTHERS}
    alarms_in(OTHERS, calm, answered(rng, plain(rng, 10_000)))
    found: dict[str, Any] = {}
    for shift in SHIFTS:
        first = pool.starmap(_answers_power, [(calm, shift, draw) for draw in range(draws)], chunksize=1)
        found[f"{shift:.0%}"] = told(first, OTHERS)
        say(f"answers at {shift:.0%}", found[f"{shift:.0%}"])
    return found


def _answers_power(calm: dict[str, State], shift: float, draw: int) -> dict[str, int]:
    rng = np.random.default_rng((18, round(100 * shift), draw))
    states = {
        d.name: d.open(Opening(drift=DRIFT, holdout=(10, 200), predecessor=calm[d.name])) for d in OTHERS
    }
    return alarms_in(OTHERS, states, answered(rng, plain(rng, 2_000), shift))


def false_alarms(pool: Any, sizes: Sequence[int], windows: int) -> dict[str, Any]:
    """Return how often any detector speaks in known traffic: prompts drawn again and again evenly, by Zipf's
    law, by Zipf's law with the intents in another order every day of 40 windows, slowly."""
    runs, length = 12, max(10, -(-windows // (12 * len(KINDS))))
    found: dict[str, Any] = {}
    for kind in KINDS:
        tasks = [(kind, length, sizes[run % len(sizes)], run) for run in range(runs)]
        spoke = pool.starmap(_false_alarms, tasks, chunksize=1)
        found[kind] = {
            "windows": runs * length,
            "false alarms": {
                f"reference {size}": summed(spoke[n :: len(sizes)]) for n, size in enumerate(sizes)
            },
        }
        say(f"false alarms, {kind}", found[kind])
    by_size = [by for one in found.values() for by in one["false alarms"].values()]
    every = sum(sum(by.values()) for by in by_size)
    total = sum(one["windows"] for one in found.values())
    found["windows"], found["false alarms in 10,000 windows"] = total, round(every / total * 10_000, 2)
    say("known traffic", found["false alarms in 10,000 windows"])
    return found


def _false_alarms(kind: str, length: int, size: int, run: int) -> dict[str, int]:
    rng = np.random.default_rng((19, list(KINDS).index(kind), size, run))
    drawn = scene(_shared[0], size, EIGHT, rng)
    items = [drawn.items[n] for n in KINDS[kind](drawn, length * WINDOW, rng)]
    states = {detector.name: detector.open(opening(drawn)) for detector in DETECTORS}
    counts: dict[str, int] = {}
    alarms_in(DETECTORS, states, answered(rng, items), counts)
    return counts


def summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for one in counts:
        for name, count in one.items():
            total[name] += count
    return dict(total)


def evenly(drawn: Scene, count: int, rng: Rng) -> Stream:
    return rng.choice(drawn.known, count).tolist()


def zipf(drawn: Scene, count: int, rng: Rng) -> Stream:
    by_intent = intents_of(drawn)
    return of_intents(by_intent, popularity(len(by_intent), rng), count, rng)


def reordered(drawn: Scene, count: int, rng: Rng) -> Stream:
    """Popularity moves from one order to another within 40 windows, and on to the next."""
    by_intent = intents_of(drawn)
    stream: list[int] = []
    before, after = popularity(len(by_intent), rng), popularity(len(by_intent), rng)
    while len(stream) < count:
        for step in range(40):
            shares = before + (after - before) * step / 40
            stream += of_intents(by_intent, shares, WINDOW, rng)
        before, after = after, popularity(len(by_intent), rng)
    return stream[:count]


def intents_of(drawn: Scene) -> list[Any]:
    """Return the known prompts by intent."""
    intents = drawn.intents[drawn.known]
    return [drawn.known[intents == intent] for intent in np.unique(intents)]


def popularity(kinds: int, rng: Rng) -> Any:
    shares = 1 / np.arange(1, kinds + 1)
    return rng.permutation(shares / shares.sum())


def of_intents(by_intent: Sequence[Any], shares: Any, count: int, rng: Rng) -> list[int]:
    chosen = rng.choice(len(by_intent), count, p=shares)
    return [int(by_intent[kind][int(rng.random() * len(by_intent[kind]))]) for kind in chosen]


KINDS: dict[str, Callable[[Scene, int, Rng], Stream]] = {
    "even": evenly, "Zipf": zipf, "Zipf, reordered slowly": reordered,
}  # fmt: skip


def _turned_over(seed: int, size: int, draw: int) -> tuple[dict[str, int], bool]:
    """Return what speaks when, after 2,000 prompts, known intents are popular in quite another order, and
    whether answers were worse."""
    rng = np.random.default_rng((seed, size, draw))
    drawn = scene(_shared[0], size, EIGHT, rng)
    after = zipf(drawn, PROMPTS, rng)
    states = {detector.name: detector.open(opening(drawn)) for detector in INPUT}
    alarms_in(INPUT, states, (drawn.items[n] for n in zipf(drawn, 2_000, rng)))
    return alarms_in(INPUT, states, (drawn.items[n] for n in after)), worse(drawn, after)


def thumbs(pool: Any, runs: int) -> dict[str, Any]:
    """Return how often 30 % thumbs down are flagged within 200 ratings, and 10 % within 1,000, from a
    baseline of 1,000 ratings drawn anew each time. A look follows each hundred ratings."""
    found: dict[str, Any] = {}
    for rate, ratings, count in ((0.3, 200, max(1, runs // 5)), (0.1, 1_000, runs)):
        share = -(-count // 100)
        tasks = [(rate, ratings, min(share, count - first), first) for first in range(0, count, share)]
        ends = [end for some in pool.starmap(_thumbs, tasks, chunksize=1) for end in some]
        found[f"{rate:.0%} down, {ratings} ratings"] = {
            "runs": count,
            "flagged": round(len(ends) / count, 4),
            "median ratings": int(np.median(ends)) if ends else None,
        }
    say("thumbs", found)
    return found


def _thumbs(rate: float, ratings: int, count: int, first: int) -> list[int]:
    """Return after how many ratings those of ``count`` runs were flagged that were."""
    rng, detector = np.random.default_rng((20, ratings, first)), Feedback()
    base = InferenceScored.model_construct(
        project="desk", completion_id="c", scored="c", model_id="m", role=RouteRole.PRODUCTION, at=START,
        of="rating", client="app",
    )  # fmt: skip
    up, down = (base.model_copy(update={"rating": thumb}) for thumb in ("up", "down"))
    ends: list[int] = []
    for _ in range(count):
        before = {"baseline": [0, 0], "healthy": [int(rng.binomial(1_000, 0.1)), 1_000]}
        state = detector.open(Opening(drift=DRIFT, predecessor=before))
        for number, bad in enumerate((rng.random(ratings) < rate).tolist(), 1):
            detector.see(state, down if bad else up)
            if number % WINDOW == 0 and (finding := detector.look(state)) is not None and finding.drifted:
                ends.append(number)
                break
    return ends


def cost(questions: Questions, rng: Rng) -> dict[str, float]:
    """Return the microseconds that each detector takes for an answer, windows' ends included."""
    drawn = scene(questions, 1_000, EIGHT, rng)
    items = list(answered(rng, [drawn.items[n] for n in evenly(drawn, 5_000, rng)]))
    taken: dict[str, float] = {}
    for detector in DETECTORS:
        started = time.perf_counter()
        first_alarms((detector,), opening(drawn), items)
        taken[detector.name] = round(1e6 * (time.perf_counter() - started) / len(items), 1)
    return taken


if __name__ == "__main__":
    main()
