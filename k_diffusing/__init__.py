"""k_diffusion's samplers in diffusers pipelines."""
