"""Tests of shared/envs."""
