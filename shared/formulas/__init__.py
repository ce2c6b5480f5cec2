"""The mathematical core: pure functions, arrays in, arrays out."""
