"""Slow obvious oracles and the behaviour every agent must show."""
