"""Benchmarks: how fast the parts are on this machine, as ratios to what the machine can do. Not tests."""
