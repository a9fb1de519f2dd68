"""The loss on lines and planes: which points, at what error, and what the shape says."""
