"""Many runs: here, on a GPU together, or on a cluster."""
