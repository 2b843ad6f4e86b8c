"""Renders a scorecard as one HTML page that can be mailed: it loads nothing and runs no script.

Texts of models and customers are shown only as text: they are escaped, control and direction characters are
made visible, and long texts are cut.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from tunewheel_contracts.formats.evaluation_plan import EvaluationPlan
from tunewheel_contracts.formats.judge import JudgeReport
from tunewheel_contracts.formats.scorecard import MISSED, MetricFacts, Role, Scorecard, Slice
from tunewheel_runtime.store import ObjectStore

from tunewheel_eval.artifacts import read_written
from tunewheel_eval.generations import Generation, read_generations
from tunewheel_eval.page_parts import as_text, cut, figure, forest_plots, retrieval_part, table

MOST_ROWS = 500
MOST_PAGE_CHARACTERS = 8_000_000
ROLES = (Role.BASE, Role.CHAMPION, Role.CANDIDATE)
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
body{color:#1b1f24;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #d8dee4}
td,th{vertical-align:top;overflow-wrap:break-word}
pre{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate}
pre{background:#f6f8fa;padding:.5rem;margin:.2rem 0}
summary{cursor:pointer;overflow-wrap:anywhere}dt{font-weight:600}dd{margin:0 0 .4rem;overflow-wrap:anywhere}
.met,.passed{color:#116329}.missed,.failed{color:#a40e26}.undecided{color:#7d4e00}
svg text{font:13px system-ui,sans-serif}svg line{stroke:#57606a;stroke-width:2}svg circle{fill:#57606a}
svg .zero{stroke:#8c959f;stroke-width:1}svg .better line{stroke:#116329}svg .better circle{fill:#116329}
svg .worse line{stroke:#a40e26}svg .worse circle{fill:#a40e26}
svg g .asked{stroke:#0969da;stroke-dasharray:3 2}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"


def render_page(scorecard: Scorecard, rows: Sequence[Generation], *, informs: str | None = None) -> str:
    """Return the page. ``rows``: the outputs on held-out examples that are not erased. ``informs``: why the
    scorecard decides nothing; see ``EvaluationPlan.informs``."""
    outcome, sentence = verdict_sentence(scorecard)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="referrer" content="no-referrer"><meta name="viewport" content="width=device-width">',
        f"<title>Scorecard of {as_text(scorecard.model_id)}</title><style>{_STYLE}</style></head><body>",
        f'<h1>Scorecard of {as_text(scorecard.model_id)}</h1><p class="{outcome}">{as_text(sentence)}</p>',
        f"<p>{as_text(informs.capitalize())}.</p>" if informs else "",
        *_criteria(scorecard),
        *_differences(scorecard),
        *_contestants(scorecard),
        *_rivals(scorecard),
        *_slices(scorecard.slices),
        *retrieval_part(scorecard.retrieval),
        *_judge(scorecard.judge, scorecard.not_judged),
        *_facts(scorecard),
        *_rows(rows),
        "</body></html>\n",
    ]
    return "\n".join(part for part in parts if part)


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


def _criteria(scorecard: Scorecard) -> Iterable[str]:
    if not scorecard.checks:
        return
    yield "<h2>Criteria</h2>"
    lines: list[tuple[str, ...]] = []
    for check in scorecard.checks:
        outcome = check.end
        interval = "" if check.low is None or check.high is None else f"{check.low:.4g} to {check.high:.4g}"
        observed = "" if check.observed is None else f"{check.observed:.4g}"
        lines.append((check.criterion.title, observed, interval, outcome, check.reason))
    yield table(("criterion", "observed", "interval", "outcome", "why"), lines, tone=3)


def _differences(scorecard: Scorecard) -> Iterable[str]:
    if not scorecard.findings:
        return
    yield "<h2>Differences</h2><p>Dots are the differences observed, lines their intervals. A dashed line is "
    yield "what a criterion asks for: the whole interval has to lie on its good side.</p>"
    yield forest_plots(scorecard)
    lines = [
        (f.metric, f.against, f"{f.difference:+.4g}", f"{f.low:+.4g} to {f.high:+.4g}", f"{f.p_value:.3g}",
         f.test, f"{f.rows} rows, {f.clusters} independent")
        for f in scorecard.findings
    ]  # fmt: skip
    yield table(("metric", "against", "difference", "interval", "p", "test", "sample"), lines)


def _contestants(scorecard: Scorecard) -> Iterable[str]:
    if not scorecard.contestants:
        return
    yield "<h2>Figures</h2>"
    names = sorted({name for one in scorecard.contestants for name in one.metrics})
    order = sorted(scorecard.contestants, key=lambda one: ROLES.index(one.role))
    head = ("metric", "unit", *(f"{one.role.value}: {one.model_id}" for one in order))
    lines: list[tuple[str, ...]] = []
    for name in names:
        facts = scorecard.metrics.get(name)
        unit = "" if facts is None else facts.unit + (", lower is better" if facts.lower_is_better else "")
        if facts is not None:
            unit += f"; {_repeats(scorecard, facts)}"
        lines.append((name, unit, *(figure(one.metrics.get(name)) for one in order)))
    yield table(head, lines)


def _rivals(scorecard: Scorecard) -> Iterable[str]:
    figures = next((one.metrics for one in scorecard.contestants if one.role is Role.CANDIDATE), {})
    if scorecard.rivals:
        yield "<h2>Was tuning needed?</h2><p>On the same rows, and counted in no criterion:</p>"
        yield table(("rival",), [(one.against(figures),) for one in scorecard.rivals])


def _repeats(scorecard: Scorecard, facts: MetricFacts) -> str:
    """Return a sentence about how much two measurements of one model differ."""
    if scorecard.bundle is not None and scorecard.bundle.decoding.temperature == 0:
        return "greedy: repeats do not differ"
    if facts.repeat_spread is None:
        return "how far repeats differ was not measured"
    return f"repeats differ by {facts.repeat_spread:.3g}" if facts.repeat_spread else "repeats do not differ"


def _judge(report: JudgeReport | None, not_judged: str | None) -> Iterable[str]:
    if report is not None or not_judged is not None:
        yield "<h2>Judge</h2>"
    if not_judged is not None:
        yield f"<p>{as_text(f'There is no figure: {not_judged}.')}</p>"
    if report is None:
        return
    agreed = "" if report.agreement is None else f", and the judge agrees with them on {report.agreement:.0%}"
    said = (
        f"{report.model} prefers the candidate to the {report.against} on {report.preference:.1%} of "
        f"{report.rows} rows, a tie counting half. {report.equal} rows have two equal answers, and "
        f"{report.unread} replies could not be read. People compared {report.reviewed} pairs{agreed}. The "
        "criterion on judged goes by the figure without the judge's error."
    )
    yield f"<p>{as_text(said)}</p>"
    if report.changed is not None:
        changed = f"{report.changed} of the pairs asked about again"
        yield f"<p><b>Another model seems to answer as the judge: it calls {changed} otherwise.</b></p>"


def _slices(slices: Sequence[Slice]) -> Iterable[str]:
    if not slices:
        return
    yield "<h2>For whom</h2><p>Parts of the held-out rows, worst first. A part of few rows says little: the "
    yield "intervals of all parts by one property hold together at .05.</p>"
    lines = [
        (
            one.by,
            one.value,
            str(one.rows),
            one.metric,
            *(figure(one.figures.get(role.value)) for role in ROLES),
            "" if one.low is None or one.high is None else f"{one.low:+.2g} to {one.high:+.2g}",
        )
        for one in slices
    ]
    yield table(
        ("by", "part", "rows", "metric", *(role.value for role in ROLES), "candidate minus champion"), lines
    )


def _facts(scorecard: Scorecard) -> Iterable[str]:
    yield "<h2>What was judged</h2><dl>"
    facts: list[tuple[str, object]] = [
        ("run", scorecard.run_id),
        ("dataset version", scorecard.dataset_id),
        ("held-out rows of the dataset version", scorecard.rows_id),
        ("evaluation", scorecard.evaluation_id),
        ("criteria (SHA-256)", scorecard.criteria_sha256),
        ("looks at these rows, this one included", scorecard.looks),
    ]
    facts += [("of a margin against the champion, lost already at most", scorecard.spent or None)]
    facts += [("held-out answers that no expert validated", scorecard.unvalidated or None)]
    facts += [(f"left out: {reason}", f"{count} rows") for reason, count in scorecard.left_out.items()]
    if scorecard.bundle is not None:
        facts += [("bundle (SHA-256)", scorecard.bundle.sha256)]
        bundle = scorecard.bundle.model_dump(mode="json")
        facts += [(f"bundle: {name}", value) for name, value in bundle.items()]
    for name, value in facts:
        if value is not None:
            yield f"<dt>{as_text(name)}</dt><dd>{as_text(str(value))}</dd>"
    yield "</dl>"


def _rows(rows: Sequence[Generation]) -> Iterable[str]:
    if not rows:
        return
    ordered = sorted(rows, key=_agrees)
    yield "<h2>Rows</h2><p>Those on which the contestants differ come first.</p>"
    room = MOST_PAGE_CHARACTERS
    for number, row in enumerate(ordered):
        drawn = _row(row)
        room -= len(drawn)
        if number == MOST_ROWS or room < 0:
            yield f"<p>{len(ordered) - number} more rows are in the generations beside the scorecard.</p>"
            return
        yield drawn


def _agrees(row: Generation) -> bool:
    return len({answer.output for answer in row.answers.values()}) < 2


def _row(row: Generation) -> str:
    asked = [message for message in row.prompt if message.role != "system"]
    preview = asked[-1].content[:100] if asked else ""
    mark = "all the same" if _agrees(row) else "different"
    label = f" · {row.label}" if row.label else ""
    parts = [f"<details><summary>{as_text(row.example_id + label)} · {mark} · {as_text(preview)}</summary>"]
    parts += [f"{as_text(message.role)}<pre>{cut(message.content)}</pre>" for message in row.prompt]
    parts.append(f"expected<pre>{cut(row.expected)}</pre>")
    for role in ROLES:
        if (answer := row.answers.get(role)) is not None:
            note = "" if answer.complete else " (cut off at the limit of tokens)"
            parts.append(f"{role.value}{note}<pre>{cut(answer.output)}</pre>")
    return "".join([*parts, "</details>"])


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
