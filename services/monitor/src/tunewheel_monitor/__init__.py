"""Watches production for drift and judges rollouts."""
