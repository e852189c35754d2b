"""Samplers: what they are, how they are called, and when their steps begin."""
