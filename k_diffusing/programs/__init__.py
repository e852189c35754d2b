"""What other programs do besides their noise."""
