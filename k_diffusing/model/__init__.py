"""What a network means: noise schedules, what it predicts, coordinates, where it is guided."""
