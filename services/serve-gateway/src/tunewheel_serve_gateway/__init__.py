"""OpenAI-compatible gateway in front of the inference engine."""
