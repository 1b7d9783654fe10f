"""How a cluster started this process, as its environment variables tell."""

import http.client
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

# Variables that tell a process its place, with help for the options of the same names.
PLACES = {
    "JAX_COORDINATOR_ADDRESS": "address of process 0, HOST:PORT",
    "JAX_NUM_PROCESSES": "processes of the run",
    "JAX_PROCESS_ID": "number of this process, from 0",
}
# Seconds to wait for the metadata server of a TPU VM, which is on the same host.
_METADATA_S = 5
# Seconds to wait after each failure of it.
_WAITS_S = (0.5, 1.0, 2.0, 4.0)


class _Cluster(NamedTuple):
    """Environment variables of a cluster.

    Attributes:
        name: its name, for messages.
        count: the variable with the number of processes.
        index: the variable that numbers them.
        local: the variable that numbers those of a host, if there is one.
        host: the variable with the number of those of a host, if there is one.
        signs: variables that a cluster sets for processes that it starts together, and
            not all of them for others, such as a shell in an allocation.
    """

    name: str
    count: str
    index: str
    local: str | None
    host: str | None
    signs: tuple[str, ...]


_CLUSTERS = (
    _Cluster(
        "JAX variables",
        "JAX_NUM_PROCESSES",
        "JAX_PROCESS_ID",
        None,
        None,
        ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID"),
    ),
    _Cluster(
        "Kubernetes",
        "JAX_NUM_PROCESSES",
        "JOB_COMPLETION_INDEX",
        None,
        None,
        ("JAX_COORDINATOR_ADDRESS", "JOB_COMPLETION_INDEX"),
    ),
    _Cluster(
        "Open MPI",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        ("OMPI_COMM_WORLD_SIZE",),
    ),
    _Cluster(
        "Slurm",
        "SLURM_NTASKS",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_STEP_TASKS_PER_NODE",
        ("SLURM_STEP_NODELIST",),
    ),
)


class Start(NamedTuple):
    """How the processes of a run find each other.

    Attributes:
        cluster: what started them, such as "Slurm".
        count: the number of processes.
        index: the number of this one, from 0.
        local: its number among the processes of its host, where that is known.
        host: the number of processes of its host, where that is known.
        coordinator: the address of process 0, host:port; None where JAX finds it.
    """

    cluster: str
    count: int
    index: int
    local: int | None = None
    host: int | None = None
    coordinator: str | None = None


def find_start(environ: Mapping[str, str] = os.environ) -> Start | None:
    """How a cluster started this process; None if it is alone.

    Clusters are looked for in this order: the variables JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID; the first two with JOB_COMPLETION_INDEX, which
    Kubernetes sets in an indexed job; Open MPI; Slurm; TPU hosts of GKE; TPU VMs, whose
    metadata server is asked if libtpu is installed.

    Args:
        environ: the environment variables.

    Raises:
        ValueError: a variable that is missing, or that is not a number or an address.

    Example:
        >>> slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]"}
        >>> slurm |= {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
        >>> find_start(slurm)[:4]
        ('Slurm', 2, 1, 0)
    """
    for cluster in _CLUSTERS:
        if not all(sign in environ for sign in cluster.signs):
            continue
        processes = _number(environ, cluster.count)
        place = _number(environ, cluster.index)
        if not place < processes:
            raise ValueError(
                f"expected ${cluster.index} below ${cluster.count} = {processes}, got "
                f"{place}"
            )
        local = _number(environ, cluster.local) if cluster.local else None
        coordinator = _address(environ)
        if processes > 1 or coordinator:
            host = _host_size(environ, cluster)
            return Start(cluster.name, processes, place, local, host, coordinator)
    if "JAX_COORDINATOR_ADDRESS" in environ:
        raise ValueError(
            "expected $JAX_NUM_PROCESSES and $JAX_PROCESS_ID with "
            "$JAX_COORDINATOR_ADDRESS, got no $JAX_PROCESS_ID"
        )
    hosts = environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    slices = int(environ.get("MEGASCALE_NUM_SLICES") or 1)
    if len(hosts) * slices > 1:
        of_slice = _number(environ, "TPU_WORKER_ID")
        before = int(environ.get("MEGASCALE_SLICE_ID") or 0) * len(hosts)
        return Start("GKE TPU", len(hosts) * slices, before + of_slice)
    return None if "TPU_WORKER_HOSTNAMES" in environ else _of_tpu_vm(environ)


def _of_tpu_vm(environ: Mapping[str, str]) -> Start | None:
    """How the workers of a TPU VM were started; None elsewhere or for one worker."""
    platforms = environ.get("JAX_PLATFORMS") or "tpu"
    asked = "tpu" in platforms and "TPU_SKIP_MDS_QUERY" not in environ
    if not asked or not find_spec("libtpu"):
        return None
    found = _metadata(environ, "agent-worker-number")
    if found is None or not found.strip().isdecimal():
        return None
    of_slice = int(found)
    if not (workers := _metadata(environ, "worker-network-endpoints")):
        raise ValueError(
            "expected the metadata server of this TPU VM to list the workers in "
            f"worker-network-endpoints, got {workers!r}: start the process again"
        )
    # Lines such as MEGASCALE_NUM_SLICES: '2'.
    text = _metadata(environ, "tpu-env") or ""
    slices = dict(re.findall(rf"({'|'.join(_SLICES)}): *'?(\d+)", text))
    slices |= {name: environ[name] for name in _SLICES if environ.get(name)}
    each = len(workers.split(","))
    count = each * int(slices.get("MEGASCALE_NUM_SLICES", 1))
    before = each * int(slices.get("MEGASCALE_SLICE_ID", 0))
    return Start("TPU VM", count, before + of_slice) if count > 1 else None


_SLICES = ("MEGASCALE_NUM_SLICES", "MEGASCALE_SLICE_ID")


def _metadata(environ: Mapping[str, str], name: str) -> str | None:
    """An attribute of this virtual machine on Google Cloud; None elsewhere."""
    host = environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/attributes/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    # A proxy would not know this host.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for wait in _WAITS_S:
        try:
            with direct.open(request, timeout=_METADATA_S) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as e:
            # There is no such attribute.
            if e.code == 404:
                return None
        except urllib.error.URLError as e:
            # There is no such host, or nothing listens there.
            if isinstance(e.reason, socket.gaierror | ConnectionRefusedError):
                return None
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(wait)
    return None


def _address(environ: Mapping[str, str]) -> str | None:
    address = environ.get("JAX_COORDINATOR_ADDRESS")
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            f"expected host:port in $JAX_COORDINATOR_ADDRESS, got {address!r}"
        )
    return address


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not text.isdecimal():
        raise ValueError(f"expected a number in ${name}, got {text!r}")
    return int(text)


def _host_size(environ: Mapping[str, str], cluster: _Cluster) -> int | None:
    """The number of processes on this host; None where it is not known."""
    if cluster.host is None or cluster.host not in environ:
        return None
    # Slurm lists hosts: "4(x2),1" stands for two with 4 tasks and one with 1.
    sizes: list[int] = []
    for size, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", environ[cluster.host]):
        sizes += [int(size)] * int(times or 1)
    node = int(environ.get("SLURM_NODEID") or 0) if len(sizes) > 1 else 0
    return sizes[node] if node < len(sizes) else None


def own_gpus(
    start: Start, environ: Mapping[str, str] = os.environ
) -> tuple[int, ...] | None:
    """The GPUs that a process takes of those that it sees.

    Processes of a host share its GPUs evenly; a process that sees one GPU takes it, and
    one that is alone on its host takes all. The number of GPUs is read from
    CUDA_VISIBLE_DEVICES, else from SLURM_GPUS_ON_NODE.

    Args:
        start: how the process was started.
        environ: the environment variables.

    Returns:
        Their numbers among the GPUs that the process sees; None if it is not known how
        many there are: JAX then decides, and takes one per process under Slurm and Open
        MPI.

    Raises:
        ValueError: GPUs that cannot be shared evenly.

    Example:
        >>> start = Start("Slurm", count=4, index=3, local=1, host=2)
        >>> own_gpus(start, {"SLURM_GPUS_ON_NODE": "8"})
        (4, 5, 6, 7)
    """
    seen = environ.get("CUDA_VISIBLE_DEVICES")
    if seen:
        visible = len(seen.split(","))
    else:
        visible = int(environ.get("SLURM_GPUS_ON_NODE") or 0)
    if start.local is None or not visible:
        return None
    if visible == 1:
        return (0,)
    host = start.host or visible
    if visible % host:
        raise ValueError(
            f"expected a number of GPUs per host that is a multiple of its {host} "
            f"processes, got {visible}"
        )
    each = visible // host
    return tuple(range(start.local * each, (start.local + 1) * each))


def take_gpus(start: Start) -> str:
    """Let a process that does not join the others see its own GPUs only.

    Call it before anything uses a device.

    Args:
        start: how the processes were started.

    Returns:
        A line that says which GPUs; empty if that is left to JAX.

    Raises:
        ValueError: GPUs that cannot be shared.

    Example:
        >>> take_gpus(Start("JAX variables", count=2, index=0))
        ''
    """
    own = own_gpus(start)
    if own is None:
        return ""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = seen.split(",") if seen else [str(i) for i in range(max(own) + 1)]
    taken = ",".join(every[i] for i in own)
    os.environ["CUDA_VISIBLE_DEVICES"] = taken
    return f"{start.cluster}: process {start.index} of {start.count} takes GPU {taken}"
