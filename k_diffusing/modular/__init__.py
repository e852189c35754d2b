"""Blocks for diffusers' modular pipelines, whose denoise step is a sampler function."""
