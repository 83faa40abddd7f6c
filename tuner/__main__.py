"""Entry of the command line: `tuner`, or `python -m tuner`.

Apart from `tuner.cli` because that takes a moment to import, in which Ctrl-C is no fault either.
"""

import signal
import sys

from tuner.interrupts import EXIT_INTERRUPTED


def main() -> None:
    """Run the command line and exit."""
    try:
        from tuner.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to stop


if __name__ == "__main__":
    main()
