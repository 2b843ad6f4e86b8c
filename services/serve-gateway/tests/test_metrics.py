from __future__ import annotations

from opentelemetry.metrics import get_meter
from tunewheel_serve_gateway.metrics import MOST_MODELS, Metrics


def test_models_beyond_the_bound_share_a_label_and_known_ones_keep_theirs():
    metrics = Metrics(get_meter("test"))
    names = [f"desk-{n}" for n in range(MOST_MODELS + 2)]
    labels = [metrics.label_of(name) for name in names]
    assert labels == [*names[:MOST_MODELS], "other", "other"]
    assert metrics.label_of("desk-0") == "desk-0"
