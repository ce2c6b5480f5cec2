"""One test file per file of shared/formulas: numbers by hand, limits, independent oracles, gradients, errors."""
