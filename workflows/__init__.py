"""The Snakemake workflow: rules in *.smk, scales in profiles/, the Python they call in scripts/."""
