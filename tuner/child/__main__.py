"""Entry of the trial process: `python -P -m tuner.child`, with the arguments of `channel.begin`.

Started with `-P`, so that a folder named `envs` where the user stands cannot shadow ours; their
folder comes at the end of the path instead, where modules of their own are found.
"""

from tuner.child.channel import Channel, begin


def main() -> None:
    """Import what a trial needs, say so, and serve requests until told or left alone."""
    arguments = begin()
    from tuner.child.session import Session

    Session(Channel(arguments.events_fd)).serve(preload=arguments.preload)


if __name__ == "__main__":
    main()
