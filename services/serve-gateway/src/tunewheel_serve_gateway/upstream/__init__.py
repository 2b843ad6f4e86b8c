"""How the gateway speaks to an inference engine; ``openai`` and ``tgi`` are two ways to do it."""
