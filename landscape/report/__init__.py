"""One self-contained page of everything that was measured."""
