"""DreamerV3 (arXiv 2301.04104): one agent with one set of hyperparameters for games and control, pixels and vectors."""
