"""Options of devices."""

import dataclasses

import pytest

from experiments.imprinting.config import Config, check
from experiments.options import Mesh


@pytest.mark.parametrize(
    ("mesh", "divided", "shape"),
    [
        (Mesh(), 1, (1, 1)),
        (Mesh(), 12, (4, 1)),
        (Mesh(), 8, (8, 1)),
        (Mesh(model=2), 8, (4, 2)),
        (Mesh(3), 8, (3, 1)),
        (Mesh(-1), 1, (8, 1)),
        (Mesh(-1, 4), 1, (2, 4)),
        (Mesh(2, -1), 1, (2, 4)),
        (Mesh(model=-1), 1, (1, 8)),
    ],
)
def test_a_mesh_takes_what_it_is_told_or_what_is_left(mesh, divided, shape):
    mesh.check()
    assert tuple(mesh.make(divided).shape.values()) == shape


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (Mesh(0), "mesh.data of at least 1, or -1, got 0"),
        (Mesh(model=-2), "mesh.model of at least 1, or -1, got -2"),
        (Mesh(-1, -1), "-1 for one of mesh.data and mesh.model"),
    ],
)
def test_numbers_that_are_no_devices_are_refused(mesh, message):
    with pytest.raises(ValueError, match=message):
        mesh.check()
    with pytest.raises(ValueError, match=message):
        check(dataclasses.replace(Config(), mesh=mesh))


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(ValueError, match="from 1 to 8 devices"):
        Mesh(3, 3).make()


def test_a_head_is_split_for_one_network_at_a_time():
    config = dataclasses.replace(Config(), mesh=Mesh(model=2), population=4)
    with pytest.raises(ValueError, match="population = 1 with mesh.model = 2, got 4"):
        check(config)
