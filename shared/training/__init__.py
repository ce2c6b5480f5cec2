"""The agent protocol and the one training loop."""
