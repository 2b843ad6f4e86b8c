"""Rate limits and token budgets of callers. A request is charged before it is sent to an engine."""
