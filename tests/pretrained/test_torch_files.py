import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from jaxfer.pretrained import read_torch
from tests.pretrained.torch_writer import MAGIC, write

pytestmark = pytest.mark.once

BOTH = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before 1.6"])


@pytest.fixture
def weights(rng) -> OrderedDict:
    return OrderedDict(
        {
            "conv.weight": rng.normal(size=(4, 3, 2, 2)).astype(np.float32),
            "conv.half": rng.normal(size=5).astype(np.float16),
            "norm.num_batches_tracked": np.array(7),
        }
    )


@BOTH
def test_arrays_are_read_as_they_were_written(weights, tmp_path, legacy):
    found = read_torch(write(tmp_path / "a.pth", weights, legacy=legacy))
    assert [*found] == [*weights]
    for name, x in weights.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x)


@BOTH
def test_strides_and_plain_values_are_kept(weights, tmp_path, legacy):
    turned = weights["conv.weight"].transpose(1, 0, 3, 2).copy("F")
    value = {"model": {"w": turned}, "epoch": 3, "rates": [0.1, None, (True, "x")]}
    found = read_torch(write(tmp_path / "a.pt", value, legacy=legacy))
    np.testing.assert_array_equal(found["model"]["w"], turned)
    assert found["epoch"] == 3 and found["rates"] == [0.1, None, [True, "x"]]


class Evil:
    """Would run a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@BOTH
def test_a_file_that_would_run_something_is_refused_by_name(tmp_path, legacy):
    proof = tmp_path / "proof"
    path = write(tmp_path / "a.pth", {"w": Evil(f"touch {proof}")}, legacy=legacy)
    with pytest.raises(ValueError, match=r"a.pth cannot be read: it calls .*\.system"):
        read_torch(path)
    assert not proof.exists()
    # The file is what it seems to be: unpickled, it does run.
    pickle.loads(pickle.dumps(Evil(f"touch {proof}")))
    assert proof.exists()


def program(*instructions: bytes) -> bytes:
    """A file before PyTorch 1.6 whose value is built by these instructions."""
    system = {"protocol_version": 1001, "little_endian": True}
    head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, system))
    return head + b"".join(instructions) + pickle.dumps([], 2)


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ((b"cbuiltins\neval\n(V1+1\ntR."), "it calls builtins.eval"),
        ((b"ccollections\nOrderedDict\n)R}b(Vbuild\nbb."), "expected a dict|damaged"),
        ((b"ctorch._utils\n_rebuild_tensor_v2\n(Vx\nK\x00))tR."), "expected a _Stor"),
        ((b"(ios\nsystem\n."), "got a INST|damaged"),
        ((b"(cos\nsystem\nVls\no."), "got a OBJ"),
        ((b"\x80\x02]."), "expected a dictionary of weights in .*, got a list"),
        ((b"h\x05."), "are damaged"),
        ((b"00."), "got a POP"),
        ((b"cos\nsystem\n."), "expected tensors and plain values, got os.system"),
        ((b"}cos\nsystem\nK\x01s."), "expected names as keys, got os.system"),
    ],
)
def test_other_programs_are_refused(tmp_path, instructions, message):
    path = tmp_path / "a.pth"
    path.write_bytes(program(instructions))
    with pytest.raises(ValueError, match=message):
        read_torch(path)


def test_a_tensor_outside_its_storage_is_refused(tmp_path, monkeypatch):
    x = np.arange(6, dtype=np.float32)
    data = write(tmp_path / "a.pth", {"w": x}, legacy=True).read_bytes()
    # The length of the tensor, not that of its storage.
    at = data.rindex(b"K\x06\x85")
    path = tmp_path / "b.pth"
    path.write_bytes(data[:at] + b"K\x07\x85" + data[at + 3 :])
    with pytest.raises(ValueError, match="expected a tensor within its storage"):
        read_torch(path)


@BOTH
def test_no_damage_ends_in_anything_but_an_answer_or_a_clear_error(
    weights, tmp_path, legacy, rng
):
    whole = write(tmp_path / "a.pth", weights, legacy=legacy).read_bytes()
    path = tmp_path / "b.pth"
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        if rng.random() < 0.5:
            del data[rng.integers(len(data)) :]
        else:
            for at in rng.integers(len(data), size=3):
                data[at] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            read_torch(path)
        except ValueError as e:
            assert str(path) in str(e)
            refused += 1
    assert refused > 75


def test_what_is_no_file_of_torch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none.pth cannot be read"):
        read_torch(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(ValueError, match="text.pth cannot be read"):
        read_torch(tmp_path / "text.pth")


@BOTH
def test_files_of_pytorch_itself_are_read(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2)
    )
    state = net.state_dict() | {
        "turned": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        "part": torch.arange(10)[3:7],
        "brain": torch.arange(3.0).bfloat16(),
        "learnt": torch.nn.Parameter(torch.ones(2)),
        "size": torch.Size([1, 2]),
    }
    path = tmp_path / "a.pth"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    found = read_torch(path)
    assert [*found] == [*state] and found.pop("size") == [1, 2]
    for name, x in found.items():
        np.testing.assert_array_equal(
            x.astype(np.float64), state[name].detach().double().numpy()
        )
    with pytest.raises(ValueError, match="it (calls|holds a) torch.nn.modules"):
        torch.save(net, path, _use_new_zipfile_serialization=not legacy)
        read_torch(Path(path))
