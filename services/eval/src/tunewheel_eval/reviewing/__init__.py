"""Human review: draws the prompts that people compare, collects their answers, and decides."""
