"""A stand-in for ComfyUI's package: the attributes its samplers use, and samplers of our own that use them."""
