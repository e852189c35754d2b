"""Where noise comes from, and what each draw is for."""
