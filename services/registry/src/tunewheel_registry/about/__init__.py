"""Describes models from the artifacts behind them: a model card, and a comparison of two versions."""
