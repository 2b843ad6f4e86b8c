"""Cuts documents into passages, and builds and searches the index of them; without Kafka or HTTP."""
