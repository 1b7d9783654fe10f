"""Requests to stop: where they could be lost, or come too late."""

import signal
import subprocess
import sys
import time

import pytest

from jaxfer.signals import interruptible


def test_a_request_to_stop_is_not_lost_while_an_object_is_deleted():
    class Deleted:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM"), interruptible():
        found = Deleted()
        del found
        time.sleep(5)


def test_ctrl_c_while_python_exits_has_no_effect():
    code = (
        "import atexit, time\n"
        "from jaxfer.signals import exit_after\n"
        "atexit.register(lambda: (print('exits', flush=True), time.sleep(2)))\n"
        "exit_after(lambda: 3)"
    )
    line = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "exits\n"
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)
    assert process.returncode == 3 and not shown
