"""What a recipe costs, from arithmetic alone: no torch, no GPU, nothing downloaded.

``plan.make_plan`` is the entry. It stands beside the formats because the command line and the train service
both ask it, and neither imports the other.
"""
