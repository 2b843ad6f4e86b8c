"""What is learnt from: token ids, in which order, and how they lie in a batch."""
