"""The command `landscape`, and `python -m landscape`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported is one line, too."""
    try:
        from landscape.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("landscape: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
