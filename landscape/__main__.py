"""The command `landscape`, and `python -m landscape`."""

import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported is one line, too."""
    try:
        from landscape.cli.app import main as run

        run()
    except KeyboardInterrupt:
        print("landscape: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:  # the command has ended, and Python alone would be interrupted
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
