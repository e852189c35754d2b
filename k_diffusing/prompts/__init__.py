"""What the networks are told of prompts, with and without guidance; one module for each family."""
