"""From results to pictures and one report."""
