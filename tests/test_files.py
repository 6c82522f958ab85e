"""Weights files and checkpoints: torch reads them and writes them, a stranger's are refused."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import close, posix

import minirnn
from minirnn import atomic
from minirnn.atomic import atomic_write

LAYERS = [
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {"num_layers": 2, "proj_size": 3}),
    ("GRU", {"num_layers": 2, "bidirectional": True}),
]


def entries(path, **arrays):
    """Write a zip of .npy entries, compressed."""
    np.savez_compressed(path, **arrays)
    return path


def raw(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("cell", "options"), LAYERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_come_back(cell, options, dtype, suffix, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="needs the safetensors library")
    layer = getattr(minirnn, cell)(5, 4, dtype=dtype, rng=0, **options)
    layer.weight_hh_l0.data[0, 0] = -0.0
    path = tmp_path / f"w{suffix}"
    minirnn.save_weights(layer, path)
    other = getattr(minirnn, cell)(5, 4, dtype=dtype, rng=1, **options)
    minirnn.load_weights(other, path)
    same(other.state_dict(), layer.state_dict())
    assert os.listdir(tmp_path) == [path.name]
    if suffix == ".npz":  # the library of the other writes its metadata in any order
        first = path.read_bytes()
        minirnn.save_weights(other, path)
        assert path.read_bytes() == first


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_of_another_dtype_become_the_parameters(dtype, suffix, tmp_path):
    if suffix == "safetensors":
        pytest.importorskip("safetensors", reason="needs the safetensors library")
    other = {"float32": "float64", "float64": "float32"}[dtype]
    kept, layer = minirnn.GRU(3, 2, dtype=other, rng=0), minirnn.GRU(3, 2, dtype=dtype, rng=1)
    minirnn.save_weights(kept, tmp_path / f"w.{suffix}")
    minirnn.load_weights(layer, tmp_path / f"w.{suffix}")
    for name, p in layer.named_parameters():
        assert p.data.dtype == dtype
        np.testing.assert_array_equal(p.data, kept.state_dict()[name].astype(dtype))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("cell", "options"),
    [*LAYERS, ("RNN", {"num_layers": 2, "bidirectional": True}), ("LSTM", {"bidirectional": True})],
)
def test_a_file_of_torch_s_is_trained_here_and_goes_back(cell, options, dtype, tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch")
    st = pytest.importorskip("safetensors.torch", reason="needs the safetensors library")
    twin = getattr(torch.nn, cell)(5, 4, **options, dtype=getattr(torch, dtype))
    path, x = tmp_path / "w.safetensors", np.random.default_rng(0).standard_normal((6, 3, 5))
    x, theirs = x.astype(dtype), torch.tensor(x.astype(dtype))
    st.save_file(twin.state_dict(), path)

    layer = getattr(minirnn, cell)(5, 4, **options, dtype=dtype)
    minirnn.load_weights(layer, path)
    optimizer = minirnn.SGD(layer.parameters(), 0.01)
    reference = torch.optim.SGD(twin.parameters(), 0.01)
    for _ in range(5):
        (y, _), ctx = layer.forward(x)
        optimizer.zero_grad()
        layer.backward(ctx, 2 * y)
        optimizer.step()
        reference.zero_grad()
        (twin(theirs)[0] ** 2).sum().backward()
        reference.step()
    minirnn.save_weights(layer, path)

    back = getattr(torch.nn, cell)(5, 4, **options, dtype=getattr(torch, dtype))
    back.load_state_dict(st.load_file(path))
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
    close(back(theirs)[0].detach(), twin(theirs)[0].detach(), tolerance)
    before = getattr(minirnn, cell)(5, 4, **options, dtype=dtype)
    with pytest.raises(AssertionError):  # and it has learned something
        close(before(x)[0], layer(x)[0], 1e-2)


@pytest.mark.parametrize(("cell", "options"), LAYERS)
def test_files_go_to_torch_and_back(cell, options, tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch")
    st = pytest.importorskip("safetensors.torch", reason="needs the safetensors library")
    twin = getattr(torch.nn, cell)(5, 4, **options)
    path = tmp_path / "w.safetensors"
    st.save_file(twin.state_dict(), path)
    layer = getattr(minirnn, cell)(5, 4, **options)
    minirnn.load_weights(layer, path)
    same(layer.state_dict(), {k: v.numpy() for k, v in twin.state_dict().items()})
    for p in layer.parameters():
        p.data *= 2
    minirnn.save_weights(layer, path)
    twin.load_state_dict(st.load_file(path))
    same(layer.state_dict(), {k: v.numpy() for k, v in twin.state_dict().items()})


def npy(header, data=b"", version=b"\x01\x00"):
    header = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header + data


W, B = np.ones((2, 3), "f4"), np.ones(2, "f4")


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


HOSTILE = {
    "a pickle": ("weight", lambda p: np.savez(p, weight=np.array([Boom()], object), bias=B)),
    "another shape": ("weight", lambda p: entries(p, weight=np.ones((3, 2), "f4"), bias=B)),
    "integers": ("weight", lambda p: entries(p, weight=W.astype(int), bias=B)),
    "NaN": ("bias", lambda p: entries(p, weight=W, bias=B * np.nan)),
    "too large for float32": ("bias", lambda p: entries(p, weight=W, bias=B * np.float64(1e300))),
    "missing": ("bias", lambda p: entries(p, weight=W)),
    "a climbing name": (
        r"\.\./\.\./x",
        lambda p: raw(p, [("../../x.npy", npy("{'descr': '<f4', 'shape': (), }"))]),
    ),
    "a huge array": ("weight", lambda p: entries(p, weight=np.zeros((10**7,), "f4"), bias=B)),
    "a lying header": (
        "weight",
        lambda p: raw(
            p,
            [
                ("weight.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}")),
                (
                    "bias.npy",
                    npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", bytes(8)),
                ),
            ],
        ),
    ),
    "a huge header": (
        "weight",
        lambda p: raw(p, [("weight.npy", npy("(" * 60_000)), ("bias.npy", npy(""))]),
    ),
    "text": ("damaged", lambda p: p.write_text("no zip")),
    "nothing": ("damaged", lambda p: p.write_bytes(b"")),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_npz_is_refused_and_changes_nothing(kind, tmp_path):
    entry, write = HOSTILE[kind]
    path = tmp_path / "w.npz"
    write(path)
    layer = minirnn.Linear(3, 2)
    before = layer.state_dict()
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"(?s)w\.npz.*{entry}"):
        minirnn.load_weights(layer, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
    same(layer.state_dict(), before)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entries_of_a_zip_are_refused(tmp_path):
    path = raw(tmp_path / "w.npz", [("weight.npy", b""), ("weight.npy", b"")])
    with pytest.raises(ValueError, match=r"w\.npz: duplicate entry 'weight"):
        minirnn.load_weights(minirnn.Linear(3, 2), path)


def tensors(path, header, data=bytes(32)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


GOOD = {
    "weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "bias": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (GOOD | {"bias": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]}}, "bias.*BF16"),
        (GOOD | {"bias": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [24, 26]}}, "bias.*F8"),
        (
            GOOD | {"weight": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]}},
            "weight.*shape",
        ),
        (GOOD | {"weight": 3}, "header"),
        ({"weight": GOOD["weight"]}, "missing: bias"),
        (GOOD | {"../x": GOOD["bias"]}, r"unexpected: '\.\./x'"),
        (json.dumps(GOOD)[:-1].encode() + b', "bias": 1}', "duplicate name 'bias'"),
        (b"[" * 100_000, "header"),
        (GOOD | {"bias": {"dtype": "F32", "shape": [2], "data_offsets": [2400, 2408]}}, "no whole"),
    ],
)
def test_a_hostile_safetensors_is_refused_and_changes_nothing(header, says, tmp_path):
    pytest.importorskip("safetensors", reason="needs the safetensors library")
    path = tmp_path / "w.safetensors"
    tensors(path, header)
    layer = minirnn.Linear(3, 2)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=rf"(?s)w\.safetensors.*{says}"):
        minirnn.load_weights(layer, path)
    same(layer.state_dict(), before)
    tensors(path, GOOD)
    minirnn.load_weights(layer, path)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".ckpt"])
def test_a_file_that_is_cut_or_has_a_flipped_bit_is_refused_or_harmless(suffix, tmp_path):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="needs the safetensors library")
    layer = minirnn.Linear(3, 2, rng=0)
    path = tmp_path / f"w{suffix}"
    if suffix == ".ckpt":
        minirnn.save_checkpoint(path, model=layer)
    else:
        minirnn.save_weights(layer, path)
    whole, before = path.read_bytes(), layer.state_dict()
    rng, refused, harmless = np.random.default_rng(0), 0, 0
    for k in range(200):
        content = bytearray(whole)
        if k % 4 == 0:
            del content[rng.integers(len(content)) :]
        else:
            content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            if suffix == ".ckpt":
                minirnn.load_checkpoint(path, model=layer)
            else:
                minirnn.load_weights(layer, path)
        except ValueError as error:
            refused += path.name in str(error)
        else:
            harmless += 1
        same(layer.state_dict(), before)
    assert refused + harmless == 200
    assert refused > 100


@posix
def test_no_pipe_is_waited_for_and_nothing_else_is_replaced(tmp_path):
    path = tmp_path / "w.npz"
    os.mkfifo(path)
    layer = minirnn.Linear(3, 2)
    for call in (minirnn.load_weights, minirnn.save_weights):
        with pytest.raises(ValueError, match="file"):
            call(layer, path)
    with pytest.raises(ValueError, match=r"\.safetensors or \.npz"):
        minirnn.save_weights(layer, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="file"):
        minirnn.load_checkpoint(path, model=layer)


def test_the_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (minirnn.save_weights, minirnn.load_weights):
        with pytest.raises(ImportError, match=r"minirnn\[safetensors\]"):
            call(minirnn.Linear(3, 2), tmp_path / "w.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "c"
    layer = minirnn.Linear(3, 2)
    minirnn.save_checkpoint(path, model=layer, step=3)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"extra\.f: expected"):
        minirnn.save_checkpoint(path, model=layer, extra={"f": print})
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:  # noqa: PT012
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["c"]


DIES = """
import os, signal, sys
from minirnn.atomic import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else(tmp_path):
    path = tmp_path / "c[1]"  # not a pattern
    path.write_bytes(b"old")
    subprocess.run([sys.executable, "-c", DIES, path], check=False)
    (left,) = set(os.listdir(tmp_path)) - {path.name}
    assert left.endswith(".tmp")
    assert path.read_bytes() == b"old"
    others = [".c1.01234567.tmp", ".c[1].0123456.tmp", ".c[1].0123456g.tmp", "c[1].01234567.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / ".c[1].00000000.tmp").symlink_to(tmp_path / others[0])
    os.mkfifo(tmp_path / ".c[1].00000001.tmp")
    with atomic_write(path) as outer:
        outer.write(b"outer")
        with atomic_write(path) as inner:  # another writer: the first one's file is not a leftover
            inner.write(b"inner")
        assert path.read_bytes() == b"inner"
    assert path.read_bytes() == b"outer"
    kept = {*others, ".c[1].00000000.tmp", ".c[1].00000001.tmp", path.name}
    assert set(os.listdir(tmp_path)) == kept


def test_a_writer_whose_file_was_taken_for_a_leftover_makes_another(tmp_path, monkeypatch):
    locked = []

    def lock(file, wait):
        locked.append(file)
        if len(locked) == 1:
            (partial,) = tmp_path.iterdir()
            partial.unlink()

    monkeypatch.setattr(atomic, "_lock", lock)
    with atomic_write(tmp_path / "c") as file:
        file.write(b"whole")
    assert (tmp_path / "c").read_bytes() == b"whole"
    assert len(locked) == 2


def test_many_may_write_to_one_name(tmp_path):
    contents = [bytes([k]) * 5000 for k in range(4)]

    def write(content):
        for _ in range(25):
            with atomic_write(tmp_path / "c") as file:
                file.write(content)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, contents))
    assert (tmp_path / "c").read_bytes() in contents
    assert os.listdir(tmp_path) == ["c"]


class Run:
    """Training with everything that draws: dropout of both kinds, a layer's own generator, shuffling."""

    def __init__(self, seed=5):
        from minirnn.data import batches

        minirnn.manual_seed(seed)
        rnn = minirnn.GRU(3, 4, num_layers=2, dropout=0.3, recurrent_dropout=0.2, rng=seed)
        self.model = minirnn.Sequential(rnn, minirnn.Dropout(0.2), minirnn.Linear(4, 2))
        self.optimizer = minirnn.Adam(self.model.parameters(), 0.01)
        self.scheduler = minirnn.ExponentialLR(self.optimizer, 0.9)
        rng = np.random.default_rng(0)
        sequences = [rng.standard_normal((n, 3)).astype("f4") for n in rng.integers(1, 9, 23)]
        self.data = batches(sequences, batch_size=4, bucket=True, rng=seed)
        self.step = 0

    def train(self, steps, after=lambda: None):
        while True:
            for x in self.data:
                y, ctx = self.model.forward(x)
                self.optimizer.zero_grad()
                self.model.backward(ctx, y)
                self.optimizer.step()
                self.scheduler.step()
                self.step += 1
                after()
                if self.step == steps:
                    return self

    def parts(self):
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}

    def save(self, path):
        extra = {"data": self.data.state_dict()}
        minirnn.save_checkpoint(path, **self.parts(), step=self.step, extra=extra)

    def load(self, path):
        found = minirnn.load_checkpoint(path, **self.parts())
        self.step = found["step"]
        self.data.load_state_dict(found["extra"]["data"])
        return self


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = Run().train(20).model.state_dict()
    for first in (1, 6, 9):
        Run().train(first).save(tmp_path / "c")
        same(Run(seed=7).load(tmp_path / "c").train(20).model.state_dict(), whole)


def test_a_resumed_run_in_threads_is_the_uninterrupted_one(tmp_path):
    """Both directions in threads, which draw nothing: their masks have been drawn before."""

    def begun(seed):
        run = Run(seed)
        options = {"dropout": 0.3, "recurrent_dropout": 0.2, "bidirectional": True, "rng": seed}
        rnn = minirnn.GRU(3, 128, num_layers=2, **options)
        run.model = minirnn.Sequential(rnn, minirnn.Dropout(0.2), minirnn.Linear(256, 2))
        run.optimizer = minirnn.Adam(run.model.parameters(), 0.01)
        run.scheduler = minirnn.ExponentialLR(run.optimizer, 0.9)
        return run

    minirnn.set_num_threads(2)
    try:
        whole = begun(5).train(9).model.state_dict()
        begun(5).train(4).save(tmp_path / "c")
        same(begun(7).load(tmp_path / "c").train(9).model.state_dict(), whole)
    finally:
        minirnn.set_num_threads(1)


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path):
    path = tmp_path / "c"
    run = Run().train(3)
    run.save(path)
    other = Run(seed=8).train(2)
    other.scheduler = minirnn.ReduceLROnPlateau(other.optimizer)
    before, states = other.model.state_dict(), minirnn.get_rng_state()
    optimizer = other.optimizer.state_dict()
    with pytest.raises(ValueError, match="c: does not fit"):
        minirnn.load_checkpoint(path, **other.parts())
    same(other.model.state_dict(), before)
    assert minirnn.get_rng_state() == states
    assert other.optimizer.state_dict()["steps"] == optimizer["steps"]
    minirnn.save_checkpoint(path, model=run.model)
    with pytest.raises(ValueError, match="state of the optimizer"):
        minirnn.load_checkpoint(path, model=run.model, optimizer=run.optimizer)


def text(**changes):
    """Return a change of what a checkpoint says in its JSON."""

    def change(members):
        members["checkpoint.json"] = json.dumps(
            json.loads(members["checkpoint.json"]) | changes
        ).encode()

    return change


def entry(name, array, **options):
    """Return a change of an entry to an array."""

    def change(members):
        file = io.BytesIO()
        np.lib.format.write_array(file, np.asarray(array), **options)
        members[name] = file.getvalue()

    return change


NESTED = b'{"step": ' + b"[" * 100_000
CHECKPOINTS = {
    "a pickle": ("1.*Python objects", entry("arrays/1.npy", np.array([Boom()], object))),
    "a pickled weight": ("weight.*objects", entry("model/weight.npy", np.array([Boom()], object))),
    "another shape": ("weight.*shape", entry("model/weight.npy", np.ones((3, 2), "f4"))),
    "integers": ("weight.*expected float", entry("model/weight.npy", np.ones((2, 3), int))),
    "NaN": ("bias.*finite", entry("model/bias.npy", np.full(2, np.nan, "f4"))),
    "a huge header": (
        "weight",
        lambda m: m.update({"model/weight.npy": npy("(" * 60_000)}),
    ),
    "a lying header": (
        "arrays/1.*bytes",
        lambda m: m.update(
            {
                "arrays/1.npy": npy(
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999,)}"
                )
            }
        ),
    ),
    "a climbing name": (r"unexpected: '\.\./x'", entry("model/../x.npy", np.ones(2, "f4"))),
    "a missing weight": ("missing: bias", lambda m: m.pop("model/bias.npy")),
    "no JSON": ("damaged|checkpoint", lambda m: m.pop("checkpoint.json")),
    "half of JSON": ("JSON", lambda m: m.update({"checkpoint.json": b'{"step": 1'})),
    "nested JSON": ("damaged", lambda m: m.update({"checkpoint.json": NESTED})),
    "a list": ("no checkpoint", lambda m: m.update({"checkpoint.json": b"[1]"})),
    "a missing array": ("no checkpoint", lambda m: m.pop("arrays/0.npy")),
    "a step that is none": ("step: expected", text(step="x")),
    "a negative step": ("step: expected", text(step=-1)),
    "a number as state": ("does not fit", text(optimizer=3)),
    "a generator that is none": ("does not fit", text(generators={"global": {}, "layers": []})),
    "another number of layers": ("does not fit", text(generators={"global": {}, "layers": [1]})),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused_and_changes_nothing(kind, tmp_path):
    says, change = CHECKPOINTS[kind]
    model = minirnn.Linear(3, 2, rng=0)
    optimizer = minirnn.Adam(model.parameters())
    optimizer.step()
    path = tmp_path / "c"
    extra = {"of": np.arange(3)}
    minirnn.save_checkpoint(path, model=model, optimizer=optimizer, step=3, extra=extra)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    raw(path, members.items())
    other = minirnn.Linear(3, 2, rng=1)
    adam = minirnn.Adam(other.parameters())
    adam.step()
    before, state, drawn = other.state_dict(), repr(adam.state_dict()), minirnn.get_rng_state()
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"(?s)/c\b.*({says})"):
        minirnn.load_checkpoint(path, model=other, optimizer=adam)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
    same(other.state_dict(), before)
    assert repr(adam.state_dict()) == state
    assert minirnn.get_rng_state() == drawn


def test_a_compressed_checkpoint_which_may_grow_without_end_is_refused(tmp_path):
    path, model = tmp_path / "c", minirnn.Linear(3, 2)
    minirnn.save_checkpoint(path, model=model)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arrays/0.npy", bytes(10**7))
    with pytest.raises(ValueError, match=r"arrays/0\.npy: expected it stored"):
        minirnn.load_checkpoint(path, model=model)


def test_extra_comes_back(tmp_path):
    extra = {"a": [1, 2.5, None, True, "x"], "b": np.arange(3), "n": 2**130, "inf": float("inf")}
    layer = minirnn.Linear(3, 2)
    minirnn.save_checkpoint(tmp_path / "c", model=layer, step=np.int64(4), extra=extra)
    found = minirnn.load_checkpoint(tmp_path / "c", model=layer)
    assert found["step"] == 4
    np.testing.assert_array_equal(found["extra"].pop("b"), extra.pop("b"))
    assert found["extra"] == extra
    with pytest.raises(ValueError, match="step: expected"):
        minirnn.save_checkpoint(tmp_path / "c", model=layer, step=-1)


def test_the_generators_state_is_set_whole_or_not_at_all():
    state = minirnn.get_rng_state()
    first = minirnn.Linear(3, 2).weight.data
    for bad in ({}, {"bit_generator": "MT19937"}, None, state | {"state": {"state": "x"}}):
        with pytest.raises(ValueError, match="state: expected"):
            minirnn.set_rng_state(bad)
    minirnn.set_rng_state(state)
    np.testing.assert_array_equal(minirnn.Linear(3, 2).weight.data, first)


KILLED = """
import sys, minirnn
sys.path.insert(0, sys.argv[2])
from test_files import Run
run = Run()
def save():
    run.save(sys.argv[1])
    print(run.step, flush=True)
run.train(10**9, save)
"""


@posix
def test_a_killed_run_leaves_a_whole_checkpoint(tmp_path):
    path, rng = tmp_path / "c", np.random.default_rng(0)
    for _ in range(int(os.environ.get("MINIRNN_KILLS", 2))):
        arguments = [sys.executable, "-c", KILLED, path, os.path.dirname(__file__)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        run = Run(seed=9).load(path)
        run.save(path)
        assert os.listdir(tmp_path) == ["c"]  # nor is what it was writing left beside it
        steps = run.step + 3
        same(run.train(steps).model.state_dict(), Run().train(steps).model.state_dict())
