"""Statistics, curves, tables and the figures of the papers."""
