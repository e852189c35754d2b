"""Closed-form models, whose answer is known, and what they tell of a sampler."""
