"""How alike texts are: their bigrams, and an index of them that grows."""
