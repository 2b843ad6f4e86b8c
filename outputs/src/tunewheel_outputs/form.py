"""Whether an answer has the form that a task asks for: its schema, and every output rule."""

from __future__ import annotations

from tunewheel_contracts.fields import linear_complaint
from tunewheel_contracts.formats.output_rules import AllowedValuesRule, CitedRule, OutputRule, PatternRule
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.parsing import Unparsed, parse, readable
from tunewheel_outputs.rules import rule_complaints
from tunewheel_outputs.schema import SchemaCheck


class AnswerForm:
    """One task's form. Without schema and rules every answer that says something has it.

    A rule whose pattern no linear-time engine knows is left out: curate refuses to build by it.
    """

    def __init__(self, task: TaskSpec) -> None:
        self._schema = None if task.output_schema is None else SchemaCheck(task.output_schema)
        known = [(n, rule) for n, rule in enumerate(task.output_rules) if not _unknown_pattern(rule)]
        self._numbers = tuple(number for number, _ in known)
        self._rules = tuple(rule for _, rule in known)

    def is_valid(self, answer: str, asked: str) -> bool:
        """True where ``answer`` has the form; ``asked`` is all that was said before it, as one text."""
        if self._schema is not None and not self._schema.fits(answer):
            return False
        return not self.violations(answer, asked)

    def violations(self, answer: str, asked: str) -> tuple[str, ...]:
        """Name what ``answer`` breaks of the form: ``empty``, ``output_schema``, ``output_rules.<n>``."""
        if self._schema is None and not self._rules:
            return () if answer.strip() else ("empty",)
        fits = self._schema is None or self._schema.fits(answer)
        held = zip(self._numbers, self.held(answer, asked), strict=True)
        broken = tuple(f"output_rules.{number}" for number, holds in held if not holds)
        return broken if fits else ("output_schema", *broken)

    def held(self, answer: str, asked: str) -> list[bool]:
        """Tell of each output rule whether ``answer`` holds to it.

        A rule about a field is broken by an answer that is no JSON. One that lacks the field holds to it: see
        ``rule_complaints``.
        """
        if not self._rules:
            return []
        unread = any(rule.field for rule in self._rules) and not _is_json(answer)
        complaints = rule_complaints(self._rules, [readable(answer)], [readable(asked)])
        return [
            said is None and not (unread and rule.field is not None)
            for rule, (said,) in zip(self._rules, complaints, strict=True)
        ]


def is_plain_label(task: TaskSpec) -> bool:
    """Tell whether a whole answer is a label: free text that an output rule holds to certain values."""
    return task.output_schema is None and any(
        isinstance(rule, AllowedValuesRule) and rule.field is None for rule in task.output_rules
    )


def _unknown_pattern(rule: OutputRule) -> bool:
    return isinstance(rule, PatternRule | CitedRule) and linear_complaint(rule.pattern) is not None


def _is_json(answer: str) -> bool:
    try:
        parse(answer)
    except Unparsed:
        return False
    return True
