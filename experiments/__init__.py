"""One package per paper; each is run as `python -m experiments.NAME`."""

import signal
import sys

# Python is importing what it was told to run: until that handles signals, Ctrl-C ends
# the process without a traceback.
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
