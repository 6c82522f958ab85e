"""What the tests of test_mpi.py have mpiexec run: ``python mpi_program.py WHAT``."""

import os
import signal
import sys

import numpy as np
from helpers import close
from test_parallel import Model, train

import minirnn
from minirnn import parallel


def steps(comm):
    """Take the steps of one process, to rounding."""
    expected, model = train(Model()), Model(seed=comm.Get_rank())
    parallel.broadcast(model, comm)
    actual = train(model, comm)
    parallel.check_in_step(model, comm)
    for name in expected:
        close(actual[name], expected[name], 1e-12)
    everyone = comm.allgather(comm.Get_rank())
    if comm.Get_rank() == 0:
        print(f"{len(everyone)} ranks agree with one process")


def apart(comm):
    """Leave one rank's weights behind."""
    layer = minirnn.Linear(2, 1, rng=0)
    if comm.Get_rank() == 1:
        layer.bias.data = np.nextafter(layer.bias.data, np.float32(9))
    parallel.check_in_step(layer, comm)


def until(comm, end):
    """Have rank 1 come to an `end` while the others wait for it."""
    layer = minirnn.Linear(2, 1, rng=0)
    for step in range(3):
        if comm.Get_rank() == 1 and step == 2:
            end()
        parallel.average_gradients(layer, comm, 1)
    print("nobody noticed")


def raises(comm):
    """Fail on rank 1."""

    def end():
        raise ValueError("a token that there is not")

    until(comm, end)


def exits(comm):
    """Leave on rank 1, with a word and a code."""
    until(comm, lambda: sys.exit("no such file: digits.txt"))


def killed(comm):
    """Lose rank 1, as a machine out of memory does."""
    until(comm, lambda: os.kill(os.getpid(), signal.SIGKILL))


if __name__ == "__main__":
    with parallel.world() as comm:
        {f.__name__: f for f in (steps, apart, raises, exits, killed)}[sys.argv[1]](comm)
