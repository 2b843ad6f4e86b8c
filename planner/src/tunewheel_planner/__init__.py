"""What a recipe costs, from arithmetic alone: no torch, no GPU, nothing downloaded.

``plan.make_plan`` is the entry; ``spending`` says what runs have cost.
"""
