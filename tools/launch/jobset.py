"""Print the manifest of a training on the TPUs or GPUs of a Kubernetes cluster.

    python tools/launch/jobset.py --name mini --image IMAGE --topology v5e:4x8
        [--claim CLAIM] -- python -m experiments.prototypes --config ... > mini.json
    kubectl apply -f mini.json

The manifest is a JobSet (jobset.sigs.k8s.io), in JSON, which kubectl reads as YAML.
Topologies are TPU slices, such as v5e:4x8 or v5e:4x8*2 for two slices, or HOSTSxGPUS,
such as h100:4x8. There is one process per host. On TPUs of GKE the processes find each
other by what GKE provides; on GPUs by the address of the first pod.

A pod that is deleted gets SIGTERM and 300 seconds to save. After that, and after a
failure, all pods are started again, up to --restarts times, and the run goes on from
its last checkpoint; --workdir has to be on the volume of --claim.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

_PORT = 8476
_EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
_GRACE_S = 300
# The name of each TPU in GKE, and the chips of a host in slices of several hosts.
_TPUS = {
    "v4": ("tpu-v4-podslice", 4),
    "v5e": ("tpu-v5-lite-podslice", 4),
    "v5p": ("tpu-v5p-slice", 4),
    "v6e": ("tpu-v6e-slice", 4),
}
_GPUS = {"h100": "nvidia-h100-80gb", "h200": "nvidia-h200-141gb"}
_FORM = re.compile(r"(\w+):(\d+(?:x\d+)*)(?:\*(\d+))?")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


def manifest(options: argparse.Namespace) -> dict[str, Any]:
    """Return the JobSet.

    Raises:
        ValueError: a topology or a name that is not allowed.
    """
    found = _FORM.fullmatch(options.topology)
    if found is None or found[1] not in {**_TPUS, **_GPUS}:
        raise ValueError(
            "expected a topology such as v5e:4x8, v5e:4x8*2 or h100:4x8, of the chips "
            f"{[*_TPUS, *_GPUS]}, got {options.topology!r}"
        )
    if not _NAME.fullmatch(options.name):
        raise ValueError(
            "expected --name of up to 40 lower-case letters, digits and hyphens, got "
            f"{options.name!r}"
        )
    sides = [int(side) for side in found[2].split("x")]
    if found[1] in _TPUS:
        hosts, slices, pod = _tpu(found[1], found[2], sides, int(found[3] or 1))
    else:
        if len(sides) != 2 or found[3]:
            raise ValueError(f"expected GPUs as HOSTSxGPUS, got {options.topology!r}")
        hosts, slices, pod = sides[0], 1, _gpu(found[1], sides, options.name)
    container = {
        "name": "training",
        "image": options.image,
        "command": options.command,
        **pod.pop("container"),
    }
    pod |= {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_S,
        "containers": [container],
    }
    if options.claim:
        claim = {"claimName": options.claim}
        _mount(pod, "runs", options.mount, {"persistentVolumeClaim": claim})
    if found[1] in _GPUS:
        # GPUs of a host exchange data in shared memory, of which a pod has 64 MB.
        _mount(pod, "shared-memory", "/dev/shm", {"emptyDir": {"medium": "Memory"}})
    job = {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        # One failed pod fails the job, and the JobSet starts all of them again.
        "backoffLimit": 0,
        # Bad options and data: starting again would not help.
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"operator": "In", "values": [2]},
                }
            ]
        },
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": options.name,
            # Each job has the nodes of one slice for itself.
            "annotations": {_EXCLUSIVE: "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {
                "maxRestarts": options.restarts,
                "rules": [
                    {
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "network": {"enableDNSHostnames": True},
            "replicatedJobs": [
                {"name": "workers", "replicas": slices, "template": {"spec": job}}
            ],
        },
    }


def _mount(pod: dict[str, Any], name: str, path: str, source: dict[str, Any]) -> None:
    """Add a volume to a pod and to its container."""
    (container,) = pod["containers"]
    container.setdefault("volumeMounts", []).append({"name": name, "mountPath": path})
    pod.setdefault("volumes", []).append({"name": name, **source})


def _tpu(
    kind: str, shape: str, sides: Sequence[int], slices: int
) -> tuple[int, int, dict[str, Any]]:
    """Return the hosts of a slice, the slices, and what a pod needs."""
    accelerator, per_host = _TPUS[kind]
    axes = 2 if kind in ("v5e", "v6e") else 3
    if len(sides) != axes:
        raise ValueError(f"expected {axes} sides of a {kind} slice, got {shape}")
    chips = math.prod(sides)
    own = min(chips, per_host)
    if chips % own:
        raise ValueError(f"expected hosts of {own} chips in {kind}:{shape}")
    resources = {"google.com/tpu": own}
    selector = {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": shape,
    }
    container = {
        "ports": [{"containerPort": _PORT}],
        "resources": {"requests": resources, "limits": resources},
    }
    return chips // own, slices, {"nodeSelector": selector, "container": container}


def _gpu(kind: str, sides: Sequence[int], name: str) -> dict[str, Any]:
    """Return what the pod of a host needs; its number is in JOB_COMPLETION_INDEX."""
    resources = {"nvidia.com/gpu": sides[1]}
    # The first pod of the first job, by the names that JobSet gives.
    first = f"{name}-workers-0-0.{name}:{_PORT}"
    container = {
        "ports": [{"containerPort": _PORT}],
        "env": [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": first},
            {"name": "JAX_NUM_PROCESSES", "value": str(sides[0])},
        ],
        "resources": {"requests": resources, "limits": resources},
    }
    selector = {"cloud.google.com/gke-accelerator": _GPUS[kind]}
    return {"nodeSelector": selector, "container": container}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the manifest, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="name of the JobSet")
    parser.add_argument("--image", required=True, help="image with jaxfer installed")
    parser.add_argument("--topology", required=True, help="such as v5e:4x8 or h100:4x8")
    parser.add_argument("--claim", help="claim of the volume with data and runs")
    parser.add_argument("--mount", default="/runs", help="its path; default: /runs")
    parser.add_argument("--restarts", type=int, default=10, help="default: 10")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    if options.command[:1] == ["--"]:
        options.command = options.command[1:]
    if not options.command:
        parser.error("expected a command after --")
    try:
        print(json.dumps(manifest(options), indent=2))
    except ValueError as e:
        parser.error(str(e))
    return 0


if __name__ == "__main__":
    sys.exit(main())
