"""From a file of interactions to packed batches."""
