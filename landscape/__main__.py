"""`python -m landscape` is `landscape`."""

from landscape.cli.app import main

main()
