"""Checks the form of an answer: the task's output schema and output rules."""

from __future__ import annotations

from tunewheel_contracts.fields import linear_complaint
from tunewheel_contracts.formats.output_rules import CitedRule, OutputRule, PatternRule
from tunewheel_contracts.formats.spec import TaskSpec

from tunewheel_outputs.parsing import Unparsed, parse, readable
from tunewheel_outputs.rules import rule_complaints
from tunewheel_outputs.schema import SchemaCheck


class AnswerForm:
    """The required form of one task's answers. Without schema and rules every answer that is not empty is
    valid.

    A rule whose pattern no linear-time engine supports is ignored here; curate refuses to build with it.
    """

    def __init__(self, task: TaskSpec) -> None:
        self._schema = None if task.output_schema is None else SchemaCheck(task.output_schema)
        known = [(n, rule) for n, rule in enumerate(task.output_rules) if not _unknown_pattern(rule)]
        self._numbers = tuple(number for number, _ in known)
        self._rules = tuple(rule for _, rule in known)

    def is_valid(self, answer: str, asked: str) -> bool:
        """Return whether ``answer`` is valid. ``asked``: the conversation before it, as one text."""
        if self._schema is not None and not self._schema.fits(answer):
            return False
        return not self.violations(answer, asked)

    def violations(self, answer: str, asked: str) -> tuple[str, ...]:
        """Return the requirements that ``answer`` breaks: ``empty``, ``output_schema``,
        ``output_rules.<n>``."""
        if self._schema is None and not self._rules:
            return () if answer.strip() else ("empty",)
        fits = self._schema is None or self._schema.fits(answer)
        held = zip(self._numbers, self.held(answer, asked), strict=True)
        broken = tuple(f"output_rules.{number}" for number, holds in held if not holds)
        return broken if fits else ("output_schema", *broken)

    def held(self, answer: str, asked: str) -> list[bool]:
        """Return for each output rule whether ``answer`` follows it.

        An answer that is not JSON breaks a rule about a field. A JSON answer without the field follows it;
        see ``rule_complaints``.
        """
        if not self._rules:
            return []
        unread = any(rule.field for rule in self._rules) and not _is_json(answer)
        complaints = rule_complaints(self._rules, [readable(answer)], [readable(asked)])
        return [
            said is None and not (unread and rule.field is not None)
            for rule, (said,) in zip(self._rules, complaints, strict=True)
        ]


def _unknown_pattern(rule: OutputRule) -> bool:
    return isinstance(rule, PatternRule | CitedRule) and linear_complaint(rule.pattern) is not None


def _is_json(answer: str) -> bool:
    try:
        parse(answer)
    except Unparsed:
        return False
    return True
