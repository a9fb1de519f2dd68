"""What a computation runs on: devices, threads, ranks, and a progress bar."""
