"""The sigma grid for one's own model, sampler and number of evaluations: proposed from one fine run, judged by runs."""
