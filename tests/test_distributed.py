"""How processes are started, wait for each other, and share values."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import numpy as np
import pytest

from jaxfer import clusters, distributed
from jaxfer.clusters import Start, find_start, own_gpus
from tests.launched import environment, launch, of_process
from tools.launch import local

SLURM = {
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "n[1-2]",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
}
JAX = {
    "JAX_COORDINATOR_ADDRESS": "host:1234",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "0",
}
KUBERNETES = {"JOB_COMPLETION_INDEX": "1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
ENDPOINTS = {"worker-network-endpoints": "a:b:c,d:e:f,g:h:i,j:k:l"}
SLICE = {"tpu-env": "ZONE: 'z'\nMEGASCALE_NUM_SLICES: '3'\nMEGASCALE_SLICE_ID: '2'\n"}
TPU = {"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "2"}


@pytest.mark.parametrize(
    ("environ", "start"),
    [
        ({}, None),
        (SLURM, Start("Slurm", 8, 5, 1)),
        ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        # A shell in an allocation has no step, and its program runs alone.
        ({k: v for k, v in SLURM.items() if "STEP" not in k}, None),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, Start("Slurm", 8, 5, 1, 4)),
        (
            {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4,3(x2)", "SLURM_NODEID": "1"},
            Start("Slurm", 8, 5, 1, 3),
        ),
        (MPI, Start("Open MPI", 4, 3, 0, 1)),
        ({**SLURM, **MPI}, Start("Open MPI", 4, 3, 0, 1)),
        (JAX, Start("JAX variables", 2, 0, coordinator="host:1234")),
        ({**SLURM, **JAX}, Start("JAX variables", 2, 0, coordinator="host:1234")),
        (
            {**{k: v for k, v in JAX.items() if "ID" not in k}, **KUBERNETES},
            Start("Kubernetes", 2, 1, coordinator="host:1234"),
        ),
        ({**JAX, **KUBERNETES}, Start("JAX variables", 2, 0, coordinator="host:1234")),
        # On GKE, JAX finds the others itself.
        ({**TPU, **KUBERNETES}, Start("GKE TPU", 4, 2)),
        (KUBERNETES, None),
        (
            {**SLURM, "JAX_COORDINATOR_ADDRESS": "host:1234"},
            Start("Slurm", 8, 5, 1, coordinator="host:1234"),
        ),
        (TPU, Start("GKE TPU", 4, 2)),
        ({**TPU, "TPU_WORKER_HOSTNAMES": "localhost"}, None),
        (
            {**TPU, "MEGASCALE_NUM_SLICES": "2", "MEGASCALE_SLICE_ID": "1"},
            Start("GKE TPU", 8, 6),
        ),
    ],
)
def test_clusters_are_found_by_their_variables(environ, start):
    assert find_start(environ) == start


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({**SLURM, "SLURM_NTASKS": "many"}, r"a number in \$SLURM_NTASKS, got 'many'"),
        ({**JAX, "JAX_PROCESS_ID": ""}, r"a number in \$JAX_PROCESS_ID, got ''"),
        ({**MPI, "OMPI_COMM_WORLD_RANK": "4"}, "below .*SIZE = 4, got 4"),
        ({**JAX, "JAX_COORDINATOR_ADDRESS": "host"}, "host:port in .*, got 'host'"),
        ({**JAX, "JAX_COORDINATOR_ADDRESS": "h:99999"}, "host:port in .*'h:99999'"),
        ({"JAX_COORDINATOR_ADDRESS": "host:1234"}, r"got no \$JAX_PROCESS_ID"),
    ],
)
def test_variables_that_do_not_fit_are_refused(environ, message):
    with pytest.raises(ValueError, match=message):
        find_start(environ)


class _Metadata(BaseHTTPRequestHandler):
    """The metadata server of a virtual machine, with `attributes`."""

    attributes: ClassVar[dict[str, str]] = {}

    def do_GET(self):
        found = self.attributes.get(self.path.rpartition("/")[2])
        asked = self.headers["Metadata-Flavor"] == "Google" and found is not None
        self.send_response(200 if asked else 404)
        self.end_headers()
        self.wfile.write((found or "none").encode())

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("attributes", "start"),
    [
        ({"agent-worker-number": "2", **ENDPOINTS}, Start("TPU VM", 4, 2)),
        ({"agent-worker-number": "1", **ENDPOINTS, **SLICE}, Start("TPU VM", 12, 9)),
        ({"agent-worker-number": "0", "worker-network-endpoints": "a:b:c"}, None),
        ({}, None),
    ],
)
def test_workers_of_a_tpu_vm_ask_its_metadata_server(attributes, start, monkeypatch):
    monkeypatch.setattr(clusters, "find_spec", lambda name: name == "libtpu")
    monkeypatch.setattr(_Metadata, "attributes", attributes)
    with HTTPServer(("127.0.0.1", 0), _Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environ = {"GCE_METADATA_IP": f"127.0.0.1:{server.server_port}"}
        assert find_start(environ) == start
        assert find_start({**environ, "TPU_SKIP_MDS_QUERY": "1"}) is None
        assert find_start({**environ, "JAX_PLATFORMS": "cpu"}) is None
        server.shutdown()
    assert find_start(environ) is None, "nobody answers"


@pytest.mark.parametrize(
    ("local", "host", "environ", "gpus"),
    [
        (1, 4, {}, None),
        (None, None, {"CUDA_VISIBLE_DEVICES": "0,1"}, None),
        # Slurm with --gpus-per-task=1: each task sees its own.
        (3, 4, {"CUDA_VISIBLE_DEVICES": "3", "SLURM_GPUS_ON_NODE": "4"}, (0,)),
        (3, 4, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, (3,)),
        (1, 2, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, (2, 3)),
        (0, 1, {"SLURM_GPUS_ON_NODE": "8"}, (0, 1, 2, 3, 4, 5, 6, 7)),
        (2, None, {"SLURM_GPUS_ON_NODE": "4"}, (2,)),
    ],
)
def test_processes_of_a_host_share_its_gpus(local, host, environ, gpus):
    assert own_gpus(Start("Slurm", 8, 0, local, host), environ) == gpus


def test_gpus_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(ValueError, match="a multiple of its 3 processes, got 4"):
        own_gpus(Start("Slurm", 3, 0, 0, 3), {"CUDA_VISIBLE_DEVICES": "0,1,2,3"})


def test_one_process_waits_for_nobody():
    assert distributed.initialize(None) == ""
    assert (distributed.index(), distributed.count()) == (0, 1)
    distributed.barrier("alone")
    assert distributed.on_first(lambda: {"a": 1}) == {"a": 1}
    assert distributed.share(3) == [3]
    rows = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(distributed.gather_rows(rows), rows)
    assert distributed.stop_now(True) and not distributed.stop_now(False)


TOGETHER = """
import json, sys
import jax, numpy as np
from jaxfer import distributed, sharding
from jaxfer.clusters import find_start

print(distributed.initialize(find_start()))
index = distributed.index()

def refuse():
    raise ValueError("full")

try:
    distributed.on_first(refuse)
except ValueError as e:
    found = {"error": [type(e).__name__, str(e)]}
found["first"] = distributed.on_first(lambda: index)
found["share"] = distributed.share(index * 10)
found["rows"] = distributed.gather_rows(np.full((2, 1), index)).ravel().tolist()
mesh = sharding.make_mesh(4)
found["own"] = [d.process_index for d in sharding.make_mesh(2).devices.flat]
found["of mesh"] = sharding.share_of(mesh)
whole = sharding.place({"x": np.arange(3), "key": jax.random.key(5)}, mesh)
found["whole"] = sharding.local(whole["x"]).tolist()
drawn = jax.jit(lambda key: jax.random.bits(key))(whole["key"])
found["same key"] = int(drawn) == int(jax.random.bits(jax.random.key(5)))
parts = sharding.place_batch(np.arange(8), mesh)
found["parts"] = [s.data.tolist() for s in parts.addressable_shards]
found["sum"] = int(jax.jit(lambda x: x.sum())(sharding.from_host(
    np.arange(4) + 4 * index, mesh)))
try:
    sharding.make_mesh(3)
except ValueError as e:
    found["three"] = str(e)
try:
    if index == 0:
        distributed.barrier("lunch", timeout=1)
except ValueError as e:
    found["missing"] = str(e)
print(json.dumps(found))
"""


@pytest.mark.once
def test_two_processes_share_values_and_arrays():
    ended = launch("-c", TOGETHER, devices=2)
    assert ended.returncode == 0, ended.stdout
    found = []
    for index in range(2):
        first, *_, last = of_process(ended, index)
        assert first.startswith("JAX variables: 2 processes, 4 devices (0 on ")
        found.append(json.loads(last))
    for index, own in enumerate(found):
        kind = ("ValueError", "Elsewhere")[index]
        assert own["error"] == [kind, "full"]
        assert own["first"] == 0 and own["share"] == [0, 10]
        assert own["rows"] == [0, 0, 1, 1]
        assert own["own"] == [index] * 2 and own["of mesh"] == [index, 2]
        assert own["whole"] == [0, 1, 2] and own["same key"]
        assert own["parts"] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]][index]
        assert own["sum"] == 28
        assert "up to 2 devices" in own["three"] and "all 4 of the 2" in own["three"]
    expected = "all 2 processes at lunch within 1 s, got nothing from [1]"
    assert expected in found[0]["missing"]


@pytest.mark.once
def test_processes_that_do_not_all_start_are_ended():
    code = (
        "from jaxfer import clusters, distributed\n"
        "distributed.initialize(clusters.find_start(), timeout=2)"
    )
    own = {**JAX, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{local.free_port()}"}
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(), **own, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: process 0 of 2 (JAX variables) waited 2 s at 127.")


@pytest.mark.once
def test_a_process_that_waits_for_others_can_be_stopped():
    code = (
        "from jaxfer.signals import interruptible\n"
        "from jaxfer import clusters, distributed\n"
        "print('begun', flush=True)\n"
        "try:\n"
        "    with interruptible():\n"
        "        distributed.initialize(clusters.find_start())\n"
        "except KeyboardInterrupt as e:\n"
        "    print(e)\n"
        "    distributed.leave(130, stop=True)"
    )
    own = {**JAX, "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{local.free_port()}"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**environment(), **own, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        shown, _ = process.communicate(timeout=20)
    assert process.returncode == 130 and shown == "stopped by SIGTERM\n"


@pytest.mark.once
def test_the_launcher_ends_all_processes_when_one_dies():
    ended = launch(
        "-c",
        "import os, sys, time\n"
        "if os.environ['JAX_PROCESS_ID'] == '1': sys.exit(7)\n"
        "time.sleep(100)",
        processes=3,
        timeout=30,
    )
    assert ended.returncode == 7
    assert "process 1 ended with exit code 7: the others are stopped" in ended.stdout


def test_a_dry_run_prints_what_would_be_started(capsys, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    options = ["-n", "2", "--gpus", "2", "--dry-run", "--", "python", "train.py"]
    assert local.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(x.endswith("python train.py") for x in lines)
    assert "JAX_PROCESS_ID=1 CUDA_VISIBLE_DEVICES=2,3 " in lines[1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert local.main(options) == 0
    assert "CUDA_VISIBLE_DEVICES=6,7 " in capsys.readouterr().out
    for wrong in (["-n", "0", "--", "x"], ["-n", "2"], ["-n", "3", *options[2:]]):
        with pytest.raises(SystemExit):
            local.parse(wrong)
    assert "expected 6 GPUs in CUDA_VISIBLE_DEVICES, got 4,5,6,7" in (
        capsys.readouterr().err
    )


def test_processes_may_have_cores_of_their_own(capsys, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 2, 5, 7})
    options = ["-n", "2", "--cores", "2", "--dry-run", "--", "python", "train.py"]
    assert local.main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("taskset ")[2] for line in lines] == [
        "-c 1,2 python train.py",
        "-c 5,7 python train.py",
    ]
    for wrong in ("3", "0"):
        with pytest.raises(SystemExit):
            local.parse([*options[:3], wrong, *options[4:]])
        assert f"from 1 to 2 for 2 processes on 4 cores, got {wrong}" in (
            capsys.readouterr().err
        )


def test_the_processes_of_a_study_take_gpus_of_their_own(monkeypatch):
    """Under Slurm they see those of the whole node."""
    slurm = {"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "4", "SLURM_PROCID": "1"}
    slurm |= {"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    for seen, own in (("4,5,6,7", "5"), ("0,1,2,3,4,5,6,7", "2,3")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        said = distributed.begin({}, together=False, timeout=9)
        assert said == f"Slurm: process 1 of 4 takes GPU {own}"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == own
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert distributed.begin({}, together=False, timeout=9).endswith("takes GPU 1")
