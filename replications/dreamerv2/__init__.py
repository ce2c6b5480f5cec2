"""DreamerV2 (arXiv 2010.02193): a world model with categorical latents, and behaviour learned in its imagination."""
