"""Tests of the Snakemake workflow."""
