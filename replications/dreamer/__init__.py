"""Dreamer: Dream to Control, learning behaviours by latent imagination."""
