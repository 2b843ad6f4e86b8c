"""The demo: two turns of the wheel on the bundled example, shown as they happen."""
