"""From data to checkpoints: the loop, its runs, and what takes their steps."""
