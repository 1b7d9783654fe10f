"""What a compiled program does on each chip: its cost, memory and collectives."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\](\{[^}]*\})?")
# The layout of an array in the fast memory of a TPU's core.
_FAST = "S(1)"
# `%name = type operation(%operand, ...)` in the text of a program.
_LINE = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_COLLECTIVES = (
    *("all-reduce", "all-gather", "all-to-all", "collective-permute"),
    *("reduce-scatter", "collective-broadcast", "send"),
)
# Operations that read a part of their first operand.
_TAKING = ("gather", "dynamic-slice", "slice")
# Operations that start no kernel on a GPU.
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all"),
    *("partition-id", "replica-id", "while", "conditional", "call", "opt-barrier"),
}


class Cost(NamedTuple):
    """The cost of one step on one chip.

    Attributes:
        compile_s: seconds that the compiler took.
        flops: floating point operations.
        read: bytes that it moves to and from the main memory of a chip.
        accessed: bytes that its operations read and write, of any memory, as XLA counts
            them.
        memory: bytes of arguments, results and temporary arrays.
        temporary: bytes of temporary arrays.
        collectives: the number of collective operations, by kind; "send" is to other
            slices of TPUs.
        sent: bytes of the arrays that a chip puts into them, by kind.
        kernels: kernels started, on a GPU; None elsewhere.
    """

    compile_s: float
    flops: float
    read: float
    accessed: float
    memory: float
    temporary: float
    collectives: Mapping[str, int]
    sent: Mapping[str, float]
    kernels: int | None


def cost_of(
    compiled: Any, lowered: Any, *, chips: int, platform: str, compile_s: float = 0
) -> Cost:
    """Return the cost of a compiled program.

    The compiler for GPUs does not know the operations of library calls. There, they are
    those of the program before it is optimised and divided among the chips, and bytes
    are those of the optimised program, with the arrays of library calls.

    Args:
        compiled: the compiled program.
        lowered: the program before compilation.
        chips: the number of chips that divide the work.
        platform: that of the chips.
        compile_s: seconds of compilation.
    """
    text, kernels = compiled.as_text(), None
    if platform == "gpu":
        kernels = kernels_of(text)
        (module,) = compiled.runtime_executable().hlo_modules()
        whole = lowered.compiler_ir("hlo").as_hlo_module()
        flops = _analysis(whole)["flops"] / chips
        read = accessed = _analysis(module)["bytes accessed"] + _library_bytes(text)
    else:
        cost = compiled.cost_analysis()
        flops, accessed = cost["flops"], cost["bytes accessed"]
        read = main_memory_bytes(text) if _FAST in text else accessed
    use = compiled.memory_analysis()
    memory = (
        use.argument_size_in_bytes
        + use.output_size_in_bytes
        - use.alias_size_in_bytes
        + use.temp_size_in_bytes
    )
    collectives, sent = collectives_of(text)
    return Cost(
        compile_s,
        flops,
        read,
        accessed,
        memory,
        use.temp_size_in_bytes,
        collectives,
        sent,
        kernels,
    )


def _analysis(module: Any) -> Mapping[str, float]:
    """The cost of a program by XLA, which JAX offers under no public name."""
    from jax._src.lib import _jax

    backend = jax.devices("cpu")[0].client
    return _jax.hlo_module_cost_analysis(backend, module)


def collectives_of(text: str) -> tuple[dict[str, int], dict[str, float]]:
    """Return the collective operations in a program's text, and the bytes put in.

    Example:
        >>> collectives_of('''
        ...   %b = f32[2,3]{1,0} parameter(0)
        ...   %a = f32[2,3]{1,0} all-reduce(%b), to_apply=%add''')
        ({'all-reduce': 1}, {'all-reduce': 24.0})
    """
    counts: dict[str, int] = {}
    sent: dict[str, float] = {}
    lines = _lines(text)
    kinds = {name: kind for name, kind, *_ in lines}
    for _, _, operation, rest in lines:
        name = operation.removesuffix("-start")
        if name in _COLLECTIVES:
            counts[name] = counts.get(name, 0) + 1
            sent[name] = sent.get(name, 0) + _operands(rest, kinds)
    return counts, sent


def kernels_of(text: str) -> int:
    """Return the number of kernels that a program for a GPU starts.

    Example:
        >>> kernels_of('''
        ... ENTRY %main (x: f32[2]) -> f32[2] {
        ...   %x = f32[2]{0} parameter(0)
        ...   ROOT %y = f32[2]{0} fusion(%x), kind=kLoop, calls=%f
        ... }''')
        1
    """
    bodies = _bodies(text)
    (entry,) = [name for name in bodies if name.startswith("ENTRY ")]
    return _kernels_in(entry, bodies)


def _kernels_in(name: str, bodies: Mapping[str, list[str]]) -> int:
    count = 0
    for line in bodies[name]:
        found = _LINE.match(line)
        if found is None:
            continue
        operation = found[3]
        if operation in ("while", "call", "conditional"):
            times = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            inner = re.findall(r"(?:body|to_apply|calls)=%?([\w.-]+)", line)
            turns = int(times[1]) if times else 1
            count += turns * sum(_kernels_in(x, bodies) for x in inner if x in bodies)
        elif operation not in _FREE and not operation.endswith("-done"):
            count += 1
    return count


def _bodies(text: str) -> dict[str, list[str]]:
    """Return the lines of each computation, by name; the entry's begins with ENTRY."""
    bodies: dict[str, list[str]] = {}
    name = None
    for line in text.splitlines():
        begun = re.match(r"^(ENTRY )?%?([\w.-]+) .*\{$", line)
        if begun:
            name = (begun[1] or "") + begun[2]
            bodies[name] = []
        elif line.startswith("}"):
            name = None
        elif name is not None:
            bodies[name].append(line)
    return bodies


def main_memory_bytes(text: str) -> float:
    """Return the bytes that a program for a TPU moves to and from its main memory.

    Arrays in the fast memory of a core are not counted. An operation that gathers or
    slices an array reads as much of it as it takes.

    Example:
        >>> main_memory_bytes('''
        ... %f (p: f32[800]) -> f32[8] {
        ...   %p = f32[800]{0} parameter(0)
        ...   ROOT %g = f32[8]{0} dynamic-slice(%p, %i), dynamic_slice_sizes={8}
        ... }
        ...
        ... ENTRY %main (x: f32[800]) -> f32[4] {
        ...   %x = f32[800]{0:T(128)} parameter(0)
        ...   %y = f32[8]{0:T(128)S(1)} fusion(%x), kind=kLoop, calls=%f
        ...   ROOT %z = f32[4]{0:T(128)} fusion(%y), kind=kLoop, calls=%g
        ... }''')
        48.0
    """
    bodies = _bodies(text)
    (entry,) = [name for name in bodies if name.startswith("ENTRY ")]
    lines = _lines("\n".join(bodies[entry]))
    kinds = {name: kind for name, kind, *_ in lines}
    total = 0.0
    for _, kind, operation, rest in lines:
        if operation in _FREE or operation.endswith("-done"):
            continue
        made = size_of(kind)
        slow = sum(size for size, fast in _arrays(kind) if not fast)
        if operation.endswith("-start"):
            # The result has the operand too, of which a slice takes a part.
            parts = [size for size, _ in _arrays(kind)]
            total += parts[1] if operation == "slice-start" else slow
            continue
        called = re.search(r"calls=%?([\w.-]+)", rest)
        taken = _taken_from(bodies.get(called[1], [])) if called else {}
        for place, name in enumerate(_operand_names(rest)):
            for size, fast in _arrays(kinds.get(name, "")):
                part = made if operation in _TAKING else taken.get(place, size)
                slow += 0 if fast else min(size, part)
        total += slow
    return total


def _taken_from(body: list[str]) -> dict[int, float]:
    """Return the bytes that a computation gathers or slices from its parameters."""
    lines, places, taken = _lines("\n".join(body)), {}, {}
    for name, _, operation, rest in lines:
        if operation == "parameter":
            places[name] = int(rest.partition(")")[0])
        elif operation == "bitcast" and (of := _operand_names(rest)[0]) in places:
            places[name] = places[of]
    for _, kind, operation, rest in lines:
        names = _operand_names(rest)
        if operation in _TAKING and names and names[0] in places:
            place = places[names[0]]
            taken[place] = taken.get(place, 0) + size_of(kind)
    return taken


def _library_bytes(text: str) -> float:
    """Return the bytes that calls of cuDNN and cuBLAS read and write."""
    total, lines = 0.0, _lines(text)
    kinds = {name: kind for name, kind, *_ in lines}
    for _, kind, operation, rest in lines:
        if operation == "custom-call" and 'custom_call_target="__cu' in rest:
            total += size_of(kind) + _operands(rest, kinds)
    return total


def _operands(rest: str, kinds: Mapping[str, str]) -> float:
    """Return the bytes of the operands in the rest of an operation's line."""
    return sum(size_of(kinds.get(name, "")) for name in _operand_names(rest))


def _operand_names(rest: str) -> list[str]:
    return re.findall(r"%([\w.-]+)", rest.partition(")")[0])


def _lines(text: str) -> list[tuple[str, str, str, str]]:
    found = map(_LINE.match, text.splitlines())
    return [(x[1], x[2], x[3], x[4]) for x in found if x is not None]


def size_of(kind: str) -> float:
    """Return the bytes of an array or tuple, given its type in a program's text.

    Example:
        >>> size_of("(f32[2,3]{1,0}, bf16[4]{0})")
        32.0
    """
    return sum(size for size, _ in _arrays(kind))


def _arrays(kind: str) -> list[tuple[float, bool]]:
    """Return the bytes of each array of a type, and whether it is in fast memory."""
    found = []
    for name, sides, layout in _ARRAY.findall(kind):
        count = math.prod(map(int, filter(None, sides.split(","))))
        found.append((float(count * _BYTES.get(name, 0)), _FAST in layout))
    return found
