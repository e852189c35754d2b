"""Names: what samplers and sigma grids are called here, in ComfyUI, in A1111's web UI and in diffusers.

Standard library alone: a name is understood, and a misspelt one answered, before torch is imported.
"""
