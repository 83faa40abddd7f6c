"""`python -m tuner`: the command line, however the console script is called."""

from tuner.cli import main

if __name__ == "__main__":
    main()
