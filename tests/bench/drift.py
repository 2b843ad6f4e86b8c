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
import math
import multiprocessing
import os
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: the processes would fight for the cores

import numpy as np
from alarms import DRIFT, alarms_in, collect, first_alarms, say, summary, summed, told
from curves import write_curves
from other_questions import bilingual, templated
from questions import (
    DATA,
    HOTELS,
    KINDS,
    WINDOW,
    Questions,
    Rng,
    Scene,
    another,
    bursts,
    encode,
    evenly,
    greeted,
    load,
    scene,
    shifted,
    worse,
    zipf,
)
from report import BENCH_DIR, write_report
from scipy.stats import chi2
from simulated_answers import SHIFTS, answered, answers_power, thumbs
from tunewheel_monitor.detectors import DETECTORS, HORIZON, WEIGHTS, Detector, Opening, State
from tunewheel_monitor.detectors.novelty import Novelty

PROMPTS = 600
CALM = 2_000
"""Known prompts before a shift begins."""
NEW = ((1, 2, 8, HOTELS), (20,))
"""Numbers of new intents. Those of a group share a draw: as many intents as the most of them needs are held
back, so that the reference is fitted once."""
EIGHT = NEW[0]
PARTS = (
    "power",
    "answers",
    "false",
    "turned",
    "bursts",
    "reworded",
    "made",
    "greeted",
    "thumbs",
    "cost",
    "shares",
)
REWORDED = (
    (0.1, 0.3),
    (0.25, 0.3),
    (0.25, 0.6),
    (0.5, 0.3),
    (0.5, 0.6),
    (1.0, 0.3),
    (1.0, 0.6),
    (0.25, 0),
    (1.0, 0),
)
MADE: dict[str, dict[str, float]] = {
    f"{share:.0%} of the questions reworded, {dropped:.0%} of the words dropped": {
        "share": share,
        "dropped": dropped,
    }
    for share, dropped in REWORDED
} | {"a fifth of the labels wrong, as a teacher's may be": {"wrong": 0.2}}
"""By name of a dataset: how ``scene`` makes it."""
TEMPLATES, BILINGUAL = "a third of all questions in templates", "half of all questions in another language"
GREETED = ((0.05, 30), (0.1, 4), (0.1, 30), (0.1, 300), (0.2, 30), (0.2, 300))
GREETED_WINDOWS = 50
INPUT = tuple(one for one in DETECTORS if one.family == "input" and one.name != "documents")
"""What documents lack is for ``drift_documents``: no passage is looked up here."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--references", type=int, nargs="+", default=[1_000, 8_000])
    parser.add_argument("--windows", type=int, default=10_000, help="of known traffic")
    parser.add_argument("--ratings", type=int, default=10_000, help="runs of ratings that do not change")
    parser.add_argument("--static", action="store_true", help="without the sentence encoder")
    parser.add_argument(
        "--other-language", type=Path, help="tests/de of github.com/home-assistant/intents; left out without"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    if not (DATA / "banking77").is_dir():
        sys.exit(f"{DATA / 'banking77'} is missing: the benchmark needs it there")
    questions, per_second = load()
    encoded_per_second = 0.0
    if not given.static:
        questions, encoded_per_second = encode(questions)
    found: dict[str, Any] = {}
    harm: dict[str, list[bool]] = defaultdict(list)
    lines: dict[str, list[float]] = {}
    made: dict[str, Questions] = {}
    if "made" in given.only:
        made[TEMPLATES] = templated(questions, np.random.default_rng(31))
        if given.other_language is not None:
            made[BILINGUAL] = bilingual(questions, given.other_language, np.random.default_rng(31))
    # forked processes share the embedded questions
    shared = made | {"": questions}
    with multiprocessing.get_context("fork").Pool(given.jobs, _begin, (shared,)) as pool:
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
        size = given.references[0]
        if "bursts" in given.only:
            first = pool.starmap(_bursts, [(size, draw) for draw in range(given.draws)], chunksize=1)
            found["known intents in bursts"] = told(first, INPUT)
            say("known intents in bursts", found["known intents in bursts"])
        for kind in (*MADE, *made) if "reworded" in given.only else made:
            drawn = pool.starmap(_made, [(size, kind, n) for n in range(given.draws)], chunksize=1)
            found[kind] = told([known for known, _ in drawn], INPUT) | {
                "a fifth of the prompts on 8 new intents": told([new for _, new in drawn], INPUT)
            }
            say(kind, found[kind])
        for share, forms in GREETED if "greeted" in given.only else ():
            tasks = [(size, share, forms, n) for n in range(given.draws)]
            counts = summed(pool.starmap(_greeted, tasks, chunksize=1))
            kind = f"{share:.0%} of known traffic are {forms} forms of greetings"
            found[kind] = {"windows": given.draws * GREETED_WINDOWS, "false alarms": counts}
            say(kind, found[kind])
        if "thumbs" in given.only:
            found["thumbs down, from 1,000 ratings at 10 %"] = thumbs(pool, given.ratings)
    if "shares" in given.only:
        say("shares of the false alarms", shares())
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
        texts_encoded_per_second=round(encoded_per_second),
        microseconds_per_item=cost(questions, np.random.default_rng(17)) if "cost" in given.only else {},
        shares_of_false_alarms=shares() if "shares" in given.only else {},
        drift_p_value=DRIFT.p_value,
        draws=given.draws,
    )


_shared: dict[str, Questions] = {}
"""By name of a kind of dataset; the empty name: as they are."""


def _begin(questions: dict[str, Questions]) -> None:
    _shared.update(questions)


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
    drawn = scene(_shared[""], size, group, rng)
    calm = opened(INPUT, drawn)
    alarms_in(INPUT, calm, (drawn.items[n] for n in shifted(drawn, CALM, group[0], 0.0, rng)))
    found: dict[tuple[int, float], tuple[dict[str, int], dict[str, int], bool]] = {}
    for new in group:
        for shift in SHIFTS:
            stream = shifted(drawn, PROMPTS, new, shift, rng)
            found[new, shift] = (
                alarms_in(INPUT, copy.deepcopy(calm), (drawn.items[n] for n in stream)),
                alarms_in(INPUT, opened(INPUT, drawn), (drawn.items[n] for n in stream)),
                worse(drawn, stream),
            )
    return found


def opening(drawn: Scene) -> Opening:
    return Opening(drift=DRIFT, weights=WEIGHTS, dataset_id="ds-1", coverage=drawn.coverage.facts)


def opened(detectors: Sequence[Detector], drawn: Scene) -> dict[str, State]:
    """Return the detectors' states at the first prompt of a version, whose dataset is encoded already."""
    states = {detector.name: detector.open(opening(drawn)) for detector in detectors}
    if drawn.encoding is not None:
        by_encoder = replace(opening(drawn), coverage=drawn.encoding.coverage.facts)
        Novelty().encode(states[Novelty.name], drawn.encoding.encoder, by_encoder)
    return states


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
                f"reference {size}": summed(counts for counts, _ in spoke[n :: len(sizes)])
                for n, size in enumerate(sizes)
            },
            "windows near an alarm": summed(near for _, near in spoke),
        }
        say(f"false alarms, {kind}", found[kind])
    by_size = [by for one in found.values() for by in one["false alarms"].values()]
    every = sum(sum(by.values()) for by in by_size)
    total = sum(one["windows"] for one in found.values())
    found["windows"], found["false alarms in 10,000 windows"] = total, round(every / total * 10_000, 2)
    found["its interval, 95 %"] = [round(end / total * 10_000, 1) for end in ends_of(every)]
    say("known traffic", found["false alarms in 10,000 windows"])
    return found


def ends_of(count: int) -> tuple[float, float]:
    """Return the ends of the exact 95 % interval of a Poisson mean (Garwood, 1936)."""
    low = float(chi2.ppf(0.025, 2 * count)) / 2 if count else 0.0
    return low, float(chi2.ppf(0.975, 2 * count + 2)) / 2


def _false_alarms(kind: str, length: int, size: int, run: int) -> tuple[dict[str, int], dict[str, int]]:
    rng = np.random.default_rng((19, list(KINDS).index(kind), size, run))
    drawn = scene(_shared[""], size, EIGHT, rng)
    items = [another(drawn.items[n], rng) for n in KINDS[kind](drawn, length * WINDOW, rng)]
    states = opened(DETECTORS, drawn)
    counts: dict[str, int] = {}
    near: dict[str, int] = {}
    alarms_in(DETECTORS, states, answered(rng, items), counts, near)
    return counts, near


def _turned_over(seed: int, size: int, draw: int) -> tuple[dict[str, int], bool]:
    """Return what speaks when, after 2,000 prompts, known intents are popular in quite another order, and
    whether answers were worse."""
    rng = np.random.default_rng((seed, size, draw))
    drawn = scene(_shared[""], size, EIGHT, rng)
    after = zipf(drawn, PROMPTS, rng)
    states = opened(INPUT, drawn)
    alarms_in(INPUT, states, (drawn.items[n] for n in zipf(drawn, 2_000, rng)))
    return alarms_in(INPUT, states, (drawn.items[n] for n in after)), worse(drawn, after)


def _bursts(size: int, draw: int) -> dict[str, int]:
    rng = np.random.default_rng((23, size, draw))
    drawn = scene(_shared[""], size, EIGHT, rng)
    stream = bursts(drawn, PROMPTS, rng)
    return alarms_in(INPUT, opened(INPUT, drawn), (another(drawn.items[n], rng) for n in stream))


def _made(size: int, kind: str, draw: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return what speaks in 2,000 known prompts to a dataset of this kind, and in prompts of which a fifth
    are about eight new intents."""
    rng = np.random.default_rng((29, size, zlib.crc32(kind.encode()), draw))
    drawn = scene(_shared.get(kind, _shared[""]), size, EIGHT, rng, **MADE.get(kind, {}))
    known = rng.permutation(drawn.known)[:CALM].tolist()
    new = shifted(drawn, PROMPTS, 8, 0.2, rng)
    found = [alarms_in(INPUT, opened(INPUT, drawn), (drawn.items[n] for n in on)) for on in (known, new)]
    return found[0], found[1]


def _greeted(size: int, share: float, forms: int, draw: int) -> dict[str, int]:
    rng = np.random.default_rng((37, size, round(100 * share), forms, draw))
    drawn = scene(_shared[""], size, EIGHT, rng)
    counts: dict[str, int] = {}
    items = greeted(drawn, GREETED_WINDOWS * WINDOW, rng, share=share, forms=forms)
    alarms_in(INPUT, opened(INPUT, drawn), items, counts)
    return counts


def shares() -> dict[str, dict[str, float]]:
    """Return each detector's share of the false alarms, and what the share costs the others: by how many per
    cent the evidence, whose logarithm grows with each item, is later enough for an alarm."""
    found: dict[str, dict[str, float]] = {}
    for detector in DETECTORS:
        share = detector.weight / WEIGHTS
        typical = np.median([other.weight for other in DETECTORS if other is not detector]) / WEIGHTS
        later = -math.log1p(-share) / math.log(HORIZON / (typical * DRIFT.p_value))
        found[detector.name] = {"share": round(share, 4), "others later, %": round(100 * later, 2)}
    return found


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
