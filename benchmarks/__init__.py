"""Measurements of speed and memory: ratios between things timed in one run, on the machine at hand."""
