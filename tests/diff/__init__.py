"""Tests of shared/diff."""
