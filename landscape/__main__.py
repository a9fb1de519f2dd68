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
    finally:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # the command has ended: Python alone would be interrupted


if __name__ == "__main__":
    main()
