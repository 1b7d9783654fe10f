"""Runs the command line: `python -m jaxfer`."""

import sys

from jaxfer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
