"""The study's figures, each rendered from stored results alone."""
