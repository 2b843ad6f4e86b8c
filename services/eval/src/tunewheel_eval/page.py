"""Renders a scorecard as one HTML page that can be mailed: it loads nothing and runs no script.

Texts of models and customers are shown only as text: they are escaped, control and direction characters are
made visible, and long texts are cut. ``page.html.jinja`` is the page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.generations import Generation, read_generations
from tunewheel_contracts.formats.retrieval_scores import CellDifference, RetrievalScores
from tunewheel_contracts.formats.scorecard import MISSED, Finding, MetricFacts, Role, Scorecard
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.artifacts import read_written

if TYPE_CHECKING:
    from jinja2 import Template

MOST_ROWS = 500
MOST_PAGE_CHARACTERS = 8_000_000
MOST_CHARACTERS = 4_000
"""The most characters of one text. The whole text is in the generations beside the scorecard."""
ROLES = (Role.BASE, Role.CHAMPION, Role.CANDIDATE)
SHOWN = ("difference", "interval", "p", "test", "sample")
"""The heads of ``_shown``."""


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, finalize=_visible, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.globals |= dict[str, Any](MOST_CHARACTERS=MOST_CHARACTERS, ROLES=ROLES, SHOWN=SHOWN)
    return environment.from_string(
        resources.files("tunewheel_eval").joinpath("page.html.jinja").read_text("utf-8")
    )


def _visible(value: Any) -> Any:
    """Return a text with invisible characters replaced by their code: control characters, format characters
    (such as those that change the direction of writing), and halves of surrogate pairs."""
    if hasattr(value, "__html__"):  # made by the template
        return value
    return "".join(
        f"\\u{ord(letter):04x}"
        if letter not in "\n\t\u200d" and unicodedata.category(letter) in ("Cc", "Cf", "Cs")
        else letter
        for letter in str(value)
    )


def render_page(scorecard: Scorecard, rows: Sequence[Generation], *, informs: str | None = None) -> str:
    """Return the page. ``rows``: the outputs on held-out examples that are not erased. ``informs``: why the
    scorecard decides nothing; see ``EvaluationPlan.informs``."""
    outcome, sentence = verdict_sentence(scorecard)
    candidate = next((one.metrics for one in scorecard.contestants if one.role is Role.CANDIDATE), {})
    scores = scorecard.retrieval
    ranking = scores.ranking if scores else None
    return _template().render(
        card=scorecard, outcome=outcome, sentence=sentence, informs=informs,
        checks=[
            (c.criterion.title, figure(c.observed), _interval(c.low, c.high, ".4g"), c.end, c.reason)
            for c in scorecard.checks
        ],
        plots=[*_plots(scorecard)],
        findings=[(one.metric, one.against, *_shown(one)) for one in scorecard.findings],
        contestants=[*_figures(scorecard)],
        rivals=[(one.against(candidate),) for one in scorecard.rivals],
        slices=[
            (s.by, s.value, s.rows, s.metric, *(figure(s.figures.get(role.value)) for role in ROLES),
             _interval(s.low, s.high, "+.2g"))
            for s in scorecard.slices
        ],
        ranking=[
            (name, figure(value), _interval(ranking.low[name], ranking.high[name], ".4g"))
            for name, value in ranking.figures.items()
        ] if ranking else [],
        cells=[*_cells(scores)] if scores else [],
        cell_differences=[
            (one.metric, one.cell.value, one.against.value, *_shown(one))
            for one in (scores.differences if scores else ())
        ],
        facts=[*_facts(scorecard)],
        rows=_rows(rows), most_rows=MOST_ROWS, most_characters=MOST_PAGE_CHARACTERS,
    )  # fmt: skip


def verdict_sentence(scorecard: Scorecard) -> tuple[str, str]:
    """Return ``passed``, ``failed`` or ``undecided``, and a sentence that says so."""
    others = [one.model_id for one in scorecard.contestants if one.role is not Role.CANDIDATE]
    name = scorecard.model_id
    if scorecard.reason is not None:
        return "failed", f"{name} could not be judged. {scorecard.field}: {scorecard.reason}."
    against = f" against {' and '.join(others)}" if others else ""
    if scorecard.passed:
        return "passed", f"{name} meets every criterion{against}."
    missed = [check for check in scorecard.checks if check.end == MISSED]
    if missed:
        names = ", ".join(check.criterion.title for check in missed)
        return "failed", f"{name} misses {names}{against}."
    open_ones = ", ".join(check.criterion.title for check in scorecard.checks if not check.passed)
    return "undecided", f"The held-out rows cannot tell whether {name} is good enough: {open_ones}{against}."


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f"{low:{form}} to {high:{form}}"


def _shown(one: Finding | CellDifference) -> tuple[str, ...]:
    interval, sample = _interval(one.low, one.high, "+.4g"), f"{one.rows} rows, {one.clusters} independent"
    return f"{one.difference:+.4g}", interval, f"{one.p_value:.3g}", one.test, sample


def _plots(scorecard: Scorecard) -> Iterator[tuple[Any, ...]]:
    """Yield a plot per unit, each with its own axis: the unit, the findings with their tone and what is asked
    of them, the least value and the span of all values."""
    units = {name: facts.unit for name, facts in scorecard.metrics.items()}
    lower = {name for name, facts in scorecard.metrics.items() if facts.lower_is_better}
    asked: dict[tuple[str, str], float] = {}
    for check in scorecard.checks:
        criterion, name = check.criterion, check.criterion.metric
        bounds = ((Role.BASE, criterion.over_base), (Role.CHAMPION, criterion.over_champion))
        if not criterion.by_label:
            sign = -1 if name in lower else 1
            asked |= {(name, role.value): sign * bound for role, bound in bounds if bound is not None}

    def unit_of(finding: Finding) -> str:
        return units.get(finding.metric, "difference")

    order = list(dict.fromkeys(map(unit_of, scorecard.findings)))
    for unit, found in groupby(
        sorted(scorecard.findings, key=lambda one: order.index(unit_of(one))), unit_of
    ):
        drawn: list[tuple[Finding, str, float | None]] = []
        ends = [0.0]
        for one in found:
            above, below = one.low > 0, one.high < 0
            better, worse = (below, above) if one.metric in lower else (above, below)
            bound = asked.get((one.metric, one.against))
            drawn.append((one, "better" if better else "worse" if worse else "open", bound))
            ends += [one.low, one.high, one.difference, *([] if bound is None else [bound])]
        yield unit, drawn, min(ends), (max(ends) - min(ends)) or 1.0


def _figures(scorecard: Scorecard) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table of figures, its head first."""
    if not scorecard.contestants:
        return
    order = sorted(scorecard.contestants, key=lambda one: ROLES.index(one.role))
    yield "metric", "unit", *(f"{one.role.value}: {one.model_id}" for one in order)
    for name in sorted({name for one in order for name in one.metrics}):
        facts = scorecard.metrics.get(name)
        unit = "" if facts is None else facts.unit + (", lower is better" if facts.lower_is_better else "")
        if facts is not None:
            unit += f"; {_repeats(scorecard, facts)}"
        yield name, unit, *(figure(one.metrics.get(name)) for one in order)


def _repeats(scorecard: Scorecard, facts: MetricFacts) -> str:
    """Return a sentence about how much two measurements of one model differ."""
    if scorecard.bundle is not None and scorecard.bundle.decoding.temperature == 0:
        return "greedy: repeats do not differ"
    if facts.repeat_spread is None:
        return "how far repeats differ was not measured"
    return f"repeats differ by {facts.repeat_spread:.3g}" if facts.repeat_spread else "repeats do not differ"


def _cells(scores: RetrievalScores) -> Iterator[tuple[str, ...]]:
    """Yield the lines of the table of cells, its head first."""
    cells = scores.cells
    titles = (one.cell.value.replace("_", " ") + (" (serves)" if one.serves else "") for one in cells)
    yield "metric", *titles
    for name in dict.fromkeys(name for cell in cells for name in cell.figures):
        yield name, *(figure(cell.figures.get(name)) for cell in cells)
    if scores.staleness is not None:
        yield "stale answers", *(figure(cell.stale) for cell in cells)
        yield "answers by the new version", *(figure(cell.current) for cell in cells)


def _facts(scorecard: Scorecard) -> Iterator[tuple[str, object]]:
    yield "run", scorecard.run_id
    yield "dataset version", scorecard.dataset_id
    yield "held-out rows of the dataset version", scorecard.rows_id
    yield "evaluation", scorecard.evaluation_id
    yield "criteria (SHA-256)", scorecard.criteria_sha256
    yield "looks at these rows, this one included", scorecard.looks
    yield "of a margin against the champion, lost already at most", scorecard.spent or None
    yield "held-out answers that no expert validated", scorecard.unvalidated or None
    yield from ((f"left out: {reason}", f"{count} rows") for reason, count in scorecard.left_out.items())
    for abstains in (one.abstention for one in scorecard.contestants if one.abstention is not None):
        chosen, proof = abstains.chosen, "shown" if abstains.shown else "not shown by these rows"
        yield "answers are sent from this confidence on", figure(chosen.least)
        yield "share of the rows that are answered", figure(chosen.coverage)
        yield (
            f"wrong among these, with {abstains.unknown:.0%} unknown subjects",
            f"{figure(chosen.wrong)}, at most {figure(chosen.bound)}; {figure(abstains.risk)} is {proof}",
        )
    if scorecard.bundle is not None:
        yield "bundle (SHA-256)", scorecard.bundle.sha256
        judged = scorecard.bundle.settings.items()
        yield from ((f"bundle: {name}", value) for name, value in judged)


def _rows(rows: Sequence[Generation]) -> list[tuple[Generation, bool]]:
    """Return each row, and whether all answers are the same. Rows with different answers come first."""
    agreed = [(row, len({one.output for one in row.answers.values()}) < 2) for row in rows]
    return sorted(agreed, key=lambda one: one[1])


async def make_page(
    store: ObjectStore, plan: EvaluationPlan, scorecard: Scorecard, *, without: Collection[str] | None = ()
) -> bytes:
    """Return the page of a plan's stored scorecard and outputs. ``without``: examples that it must not show;
    None: it shows none. Raises TransientError: the store cannot be reached."""
    rows: list[Generation] = []
    if without is not None:
        rows += await _written(store, scorecard, plan.scorecard_path)
    shown = [row for row in rows if without is not None and row.example_id not in without]
    return render_page(scorecard, shown, informs=plan.informs).encode()


async def _written(store: ObjectStore, scorecard: Scorecard, path: str) -> tuple[Generation, ...]:
    """Return the outputs. After an erasure the rest of them has another name."""
    if scorecard.generations is None:
        return ()
    data = await store.read(scorecard.generations.path)
    return read_generations(data) if data is not None else await read_written(store, path)
