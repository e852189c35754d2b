"""Two samplers on one model: where they part first."""
