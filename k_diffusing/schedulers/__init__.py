"""diffusers' schedulers as samplers, and samplers as diffusers' schedulers."""
