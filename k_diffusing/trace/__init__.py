"""What a sampler did in one run, and where two runs part."""
