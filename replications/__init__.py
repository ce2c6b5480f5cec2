"""One self-contained folder per paper."""
