"""Start a command in several processes on this machine, and end them together.

Each process gets JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, and
its lines are printed with its number. The processes of one training share its batches;
those of a study take different members.

Usage:
    python tools/launch/local.py -n 2 -- python -m experiments.prototypes --config ...
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options and the command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("-n", "--processes", type=int, required=True)
    parser.add_argument(
        "--gpus",
        type=int,
        default=0,
        help="GPUs per process; default: all processes see all devices",
    )
    parser.add_argument(
        "--cpu-devices", type=int, help="simulated CPU devices per process"
    )
    parser.add_argument(
        "--cores",
        type=int,
        help="logical cores per process; default: all processes share all cores",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=30,
        help="seconds between SIGTERM and SIGKILL, once a process has died",
    )
    parser.add_argument("--dry-run", action="store_true", help="print, start nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    if options.command[:1] == ["--"]:
        options.command = options.command[1:]
    if options.processes < 1 or not options.command:
        parser.error("expected at least one process and a command after --")
    if (needed := options.processes * options.gpus) > len(_gpus(options)):
        parser.error(
            f"expected {needed} GPUs in CUDA_VISIBLE_DEVICES, got "
            f"{','.join(_gpus(options))}"
        )
    if options.cores is not None:
        every = len(os.sched_getaffinity(0))
        if not 1 <= options.cores <= every // options.processes:
            parser.error(
                f"expected --cores from 1 to {every // options.processes} for "
                f"{options.processes} processes on {every} cores, got {options.cores}"
            )
    return options


def _gpus(options: argparse.Namespace) -> list[str]:
    """Return the GPUs of all processes, of those that CUDA_VISIBLE_DEVICES allows."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    needed = options.processes * options.gpus
    return seen.split(",") if seen else [str(i) for i in range(needed)]


def variables(options: argparse.Namespace, index: int, port: int) -> dict[str, str]:
    """Return the environment variables that tell a process its place."""
    found = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(options.processes),
        "JAX_PROCESS_ID": str(index),
    }
    if options.gpus:
        first = index * options.gpus
        own = _gpus(options)[first : first + options.gpus]
        found["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    if options.cpu_devices:
        found["JAX_PLATFORMS"] = "cpu"
        found["JAX_NUM_CPU_DEVICES"] = str(options.cpu_devices)
    return found


def command(options: argparse.Namespace, index: int) -> list[str]:
    """Return the command of a process, on cores of its own where that was asked."""
    if options.cores is None:
        return options.command
    first = index * options.cores
    own = sorted(os.sched_getaffinity(0))[first : first + options.cores]
    return ["taskset", "-c", ",".join(map(str, own)), *options.command]


def free_port() -> int:
    """Return a port that no program listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in all processes, and return the code of the first that fails."""
    options = parse(argv)
    port, processes = free_port(), []
    places = [variables(options, index, port) for index in range(options.processes)]
    if options.dry_run:
        for index, own in enumerate(places):
            shown = " ".join(f"{name}={value}" for name, value in own.items())
            print(f"{shown} {' '.join(command(options, index))}")
        return 0
    for index, own in enumerate(places):
        process = subprocess.Popen(
            command(options, index),
            env={**os.environ, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A signal of the terminal reaches this program alone, which passes it on.
            start_new_session=True,
        )
        processes.append(process)
        print(f"process {index} has number {process.pid}", flush=True)
    readers = [
        threading.Thread(target=_copy, args=(index, process.stdout))
        for index, process in enumerate(processes)
    ]
    for reader in readers:
        reader.start()
    code = _watch(processes, options.grace)
    for reader in readers:
        reader.join()
    return code


def _copy(index: int, lines: IO[str] | None) -> None:
    for line in lines or ():
        sys.stdout.write(f"[{index}] {line}")
        sys.stdout.flush()


def _watch(processes: Sequence[subprocess.Popen], grace: float) -> int:
    """Wait for all processes; once one has failed, end the others."""

    def pass_on(signum: int, frame: object) -> None:
        _send(processes, signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, pass_on)
    code, deadline, killed = 0, None, False
    while any(process.poll() is None for process in processes):
        for index, process in enumerate(processes):
            if process.poll() and not code:
                # A process that a signal ended has minus its number as its code.
                code = process.returncode
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                print(
                    f"process {index} ended with {how}: the others are stopped",
                    flush=True,
                )
                _send(processes, signal.SIGTERM)
                deadline = time.monotonic() + grace
        if deadline is not None and time.monotonic() > deadline and not killed:
            _send(processes, signal.SIGKILL)
            killed = True
        time.sleep(0.05)
    code = code or max(process.returncode for process in processes)
    return 128 - code if code < 0 else code


def _send(processes: Sequence[subprocess.Popen], signum: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signum)


if __name__ == "__main__":
    sys.exit(main())
