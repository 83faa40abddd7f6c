"""Entry of the trial process: `python -P -m tuner.child --events-fd N [--preload ENV]`.

Started with `-P`, so that a folder named `envs` where the user stands cannot shadow ours; their
folder comes at the end of the path instead, where modules of their own are found.
"""

import argparse
import os
import sys


def main() -> None:
    """Import what a trial needs, say so, and serve requests until told or left alone."""
    parser = argparse.ArgumentParser(prog="tuner.child")
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--preload")
    arguments = parser.parse_args()
    sys.path.append(os.getcwd())
    from tuner.child.session import Session

    Session(arguments.events_fd).serve(preload=arguments.preload)


if __name__ == "__main__":
    main()
