"""Where do two implementations, runs, configurations or parameter files part? Start at README.md, then cli.py."""
