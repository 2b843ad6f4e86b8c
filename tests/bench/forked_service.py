"""Runs train or eval with workers that are forked (``fork_server``): a tiny job then takes a second, and not
ten of imports. ``BENCH_SERVICE`` names the service, and ``BENCH_WORKER`` is its worker's command (JSON)."""

from __future__ import annotations

import json
import os
from functools import partial
from importlib import import_module

from tunewheel_runtime.process import run_service

if __name__ == "__main__":
    name, worker = os.environ["BENCH_SERVICE"], json.loads(os.environ["BENCH_WORKER"])
    settings = import_module(f"tunewheel_{name}.settings").Settings
    run_service(name, settings, partial(import_module(f"tunewheel_{name}.main").make_app, worker=worker))
