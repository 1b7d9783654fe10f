"""Accelerators that programs are compiled for, with the rates of their data sheets."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

_FORM = re.compile(r"(?P<chip>\w+):(?P<sides>\d+(?:x\d+)*)(?:\*(?P<slices>\d+))?")
# What XLA has to know of an H100; an H200 has another memory.
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132
  fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535 memory_bandwidth: {bandwidth} l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: {memory}
  shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 minor: 0 }} registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 28 patch: 1 }}
runtime_version {{ major: 13 minor: 5 patch: 0 }} device_description_str: "{kind}"
"""


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
        kind: its name in JAX's topologies.
        platform: "tpu" or "gpu".
        flops: floating point operations per second of matrix products in bfloat16.
        flops32: the same for float32 arrays at JAX's default precision, which is
            bfloat16 products on a TPU and TF32 on a GPU.
        memory: bytes.
        bandwidth: bytes per second of its memory.
        link: bytes per second that it sends to the chips of its slice or its host.
        network: bytes per second that it sends to those of other slices or hosts.
        kernel: seconds that each kernel takes beside its work; 0 for one program.
    """

    kind: str
    platform: str
    flops: float
    flops32: float
    memory: float
    bandwidth: float
    link: float
    network: float
    kernel: float = 0.0


# Beside their work, the kernels of a step took 3.6 to 6.1 microseconds each on an H200
# (tools/bench_plan.py; docs/performance.md).
_KERNEL_S = 5e-6
# The rates are those of Google's pages on each TPU and of NVIDIA's data sheets, without
# sparsity. Rates between slices are those of a network card, shared by its chips.
CHIPS = {
    "v4": Chip("v4", "tpu", 275e12, 275e12, 32e9, 1.228e12, 300e9, 6.25e9),
    "v5e": Chip("v5e", "tpu", 197e12, 197e12, 16e9, 0.819e12, 200e9, 3.1e9),
    "v5p": Chip("v5p", "tpu", 459e12, 459e12, 95e9, 2.765e12, 600e9, 6.25e9),
    "v6e": Chip("v6e", "tpu", 918e12, 918e12, 32e9, 1.64e12, 448e9, 12.5e9),
    "h100": Chip(
        "NVIDIA H100 80GB HBM3",
        *("gpu", 989e12, 495e12, 80e9, 3.35e12, 450e9, 50e9, _KERNEL_S),
    ),
    "h200": Chip(
        "NVIDIA H200",
        *("gpu", 989e12, 495e12, 141e9, 4.8e12, 450e9, 50e9, _KERNEL_S),
    ),
}


@dataclass(frozen=True)
class Topology:
    """Chips that are connected, written as `v5e:16x16`, `v5e:16x16*4` or `h100:4x8`.

    The sides are those of a TPU slice, and the number after the asterisk that of
    slices; or hosts and GPUs per host.
    """

    name: str
    chip: Chip
    sides: tuple[int, ...]
    slices: int = 1

    @property
    def size(self) -> int:
        """The number of chips."""
        return math.prod(self.sides) * self.slices

    @property
    def together(self) -> int:
        """The number of chips that are connected by fast links."""
        return self.sides[-1] if self.chip.platform == "gpu" else math.prod(self.sides)

    def devices(self) -> Sequence[Any]:
        """Return devices that JAX can compile for, which need not exist here.

        Raises:
            ValueError: the compiler is missing, or does not know the topology.
        """
        # An experimental module, whose only users are tools.
        from jax.experimental import topologies

        sides = "x".join(map(str, self.sides))
        if self.chip.platform == "tpu":
            extra, options = "plan-tpu", {"num_slices": self.slices}
            name, platform = f"{self.chip.kind}:{sides}", "tpu"
            if self.slices == 1:
                options = {}
        else:
            extra, platform = "plan-gpu", "cuda"
            shape = (1, *self.sides) if len(self.sides) == 2 else (1, 1, *self.sides)
            name = "x".join(map(str, shape))
            target = _GPU.format(
                bandwidth=int(self.chip.bandwidth),
                memory=int(self.chip.memory),
                kind=self.chip.kind,
            )
            options = {"target_config": target, "topology": name}
        try:
            found = topologies.get_topology_desc(
                platform=platform, topology_name=name, **options
            )
        except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as e:
            raise ValueError(
                f"expected a compiler for {self.name} (pip install -e '.[{extra}]'), "
                f"got: {str(e).splitlines()[0]}"
            ) from e
        if len(found.devices) != self.size:
            raise ValueError(
                f"expected {self.size} chips in {self.name}, got {len(found.devices)}"
            )
        return found.devices


def read_topology(text: str) -> Topology:
    """Read a topology from its name.

    Raises:
        ValueError: an unknown chip or another form.

    Example:
        >>> read_topology("h100:4x8").size, read_topology("v5e:8x8*2").size
        (32, 128)
    """
    found = _FORM.fullmatch(text)
    if found is None or found["chip"] not in CHIPS:
        raise ValueError(
            "expected a topology such as v5e:4x4, v5e:16x16*4 for four slices, or "
            f"h100:4x8 for four hosts, of the chips {[*CHIPS]}, got {text!r}"
        )
    chip, sides = CHIPS[found["chip"]], tuple(map(int, found["sides"].split("x")))
    slices = int(found["slices"] or 1)
    if chip.platform == "gpu" and (len(sides) > 2 or slices != 1):
        raise ValueError(f"expected GPUs as HOSTSxGPUS, got {text!r}")
    return Topology(text, chip, sides, slices)


def use_compilers_only() -> None:
    """Keep JAX on the CPU, and libtpu from looking for TPUs; call it first."""
    jax.config.update("jax_platforms", "cpu")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # Several processes may compile at once, since none of them has a TPU.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
