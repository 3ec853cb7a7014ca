"""Malicious files: each is rejected with a CheckpointError, and no code in it is executed."""

import io
import json
import os
import pickle
import struct
import sys
import tarfile
import warnings
import zipfile

import h5py
import numpy as np
import pytest
from torch_files import (
    CONTAINERS,
    Call,
    Global,
    PersistentId,
    Storage,
    legacy_file,
    pickled,
    tensor,
    zip_file,
)

import keras_resnet
from keras_resnet import weights
from keras_resnet.weights import CheckpointError


def test_malicious_content_is_ignored_and_not_executed(tmp_path, caplog):
    """Beside tensors, within them, and alone."""
    mark = tmp_path / "ran"
    for name in ("os.system", "posix.system", "builtins.eval", "subprocess.Popen"):
        storage = Storage("Float", "0", np.zeros(1, np.float32))
        attack = Call(name, f"touch {mark}")
        whole = {"conv1.weight": tensor(storage, (1,), (1,))}
        for write in CONTAINERS:
            path = write(tmp_path / "w.pth", {**whole, "b": attack}, [storage])
            caplog.clear()
            assert list(weights.read_state_dict(path)) == ["conv1.weight"]
            (said,) = [record.getMessage() for record in caplog.records]
            assert f"ignored content that is not weights: {name!r}" in said
            with pytest.raises(CheckpointError, match=f"{name}.*not executed"):
                weights.read_state_dict(write(path, {"b": attack}, []))
        within = {"conv1.weight": tensor(attack, (1,), (1,))}
        with pytest.raises(CheckpointError, match=f"{name}.*not executed"):
            weights.read_state_dict(zip_file(path, within, [storage]))
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps(OsSystem(f"touch {mark}"), 2))
    with pytest.raises(CheckpointError, match=r"posix\.system.*not executed"):
        weights.read_state_dict(path)
    assert not mark.exists()


class OsSystem:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((7,), (1,), 0),
        ((2, 3), (4, 1), 0),
        ((6,), (1,), 1),
        ((2,), (2**61,), 0),
        ((2**61, 2**61), (1, 1), 0),
        ((6,), (-1,), 5),
        ((-1,), (1,), 0),
        ((1,), (1,), -1),
        ((3, 3), (0, 1), 0),
        ((True,), (1,), 0),
        ("6", (1,), 0),
        ((2, 3), (1,), 0),
    ],
)
def test_tensors_beyond_their_storage_are_refused(shape, strides, offset, tmp_path):
    storage = Storage("Float", "0", np.arange(6, dtype=np.float32))
    path = zip_file(tmp_path / "w.pth", {"a": tensor(storage, shape, strides, offset)}, [storage])
    with pytest.raises(CheckpointError):
        weights.read_state_dict(path)


def test_a_storage_shorter_than_it_claims_is_refused(tmp_path):
    claimed = Storage("Float", "0", np.zeros(1000, np.float32))
    held = Storage("Float", "0", np.zeros(6, np.float32))
    state = {"a": tensor(claimed, (1000,), (1,))}
    for write in (zip_file, legacy_file):
        with pytest.raises(
            CheckpointError,
            match=r"should have (1000|4000)",
        ):
            weights.read_state_dict(write(tmp_path / "w.pth", state, [held]))


def test_a_nested_key_that_takes_for_ever_is_refused(tmp_path):
    key = ()
    for _ in range(200):
        key = (key, key)
    bomb = pickled(["placeholder"])[:2] + b"}" + pickled(key)[2:-1] + b"Ns."
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", bomb)
    with pytest.raises(CheckpointError, match="contains no state_dict"):
        weights.read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("write", CONTAINERS)
def test_every_truncation_is_refused(write, tmp_path):
    storage = Storage("Float", "0", np.arange(60, dtype=np.float32))
    path = write(tmp_path / "w.pth", {"conv1.weight": tensor(storage, (60,), (1,))}, [storage])
    content = path.read_bytes().rstrip(b"\0")  # a tar file ends with empty blocks
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"w\.pth"):
            weights.read_state_dict(path)


def global_(name):
    return b"c" + name.replace(".", "\n", 1).encode() + b"\n"


def put(number):
    return b"r" + struct.pack("<I", number)


def get(number):
    return b"j" + struct.pack("<I", number)


def long(value):
    return b"\x8a\x0a" + value.to_bytes(10, "little", signed=True)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


LAUGHS = b"K\x01" + b"".join(put(n) + get(n) + b"\x86" for n in range(400))
MANY = b"(" + b"N" * 100_000 + b"t" + put(0) + b"0"
PAIRS = b"](" + (b"K\x01K\x02\x86" * 60_000) + b"e\x85" + put(0) + b"0"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x06tQ"

# Name: the opcodes of a pickle, between its protocol and STOP.
PICKLES = {
    "nested tuples": b")" + b"\x85" * 300_000,
    "nested lists": b"]" * 200_000 + b"a" * 199_999,
    "an endless row": b"N" * 5_000_000,
    "an endless string": b"X" + struct.pack("<I", 2**31),
    "a string beyond all measure": b"\x8d" + struct.pack("<Q", 2**60),
    "a number beyond all measure": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "a long name": b"c" + b"a" * 10_000_000 + b"\nb\n",
    "a name without end": b"c" + b"a" * 10_000_000,
    "a name with an escape": b"ccollections\nOrdered\\Dict\n",
    "a memo of its own": b"N" + put(2**32 - 1) + get(2**32 - 2),
    "laughs as a shape": REBUILD + b"(" + STORAGE + b"K\x00" + LAUGHS + b"K\x01K\x01\x86\x89}tR",
    "laughs as a stride": REBUILD + b"(" + STORAGE + b"K\x00K\x06\x85" + LAUGHS + b"\x85\x89}tR",
    "laughs as an offset": REBUILD + b"(" + STORAGE + LAUGHS + b"K\x06\x85K\x01\x85\x89}tR",
    "laughs as a storage": LAUGHS + b"Q",
    "laughs as a name": LAUGHS + LAUGHS + b"\x93",
    "laughs as a key": b"}" + LAUGHS + b"Ns",
    "laughs as a function": LAUGHS + b")R",
    "laughs as arguments": global_("collections.OrderedDict") + LAUGHS + b"R",
    "many dicts of one list": PAIRS + (global_("collections.OrderedDict") + get(0) + b"R") * 20_000,
    "many shapes of one tuple": MANY + (global_("torch.Size") + get(0) + b"\x85R") * 20_000,
    "keys of one hash": b"}("
    + b"".join(long(n * (2**61 - 1)) + b"N" for n in range(1, 100_000))
    + b"u",
    "a memo of one slot": b"}" + b"".join(put(n << 13) for n in range(340_000)),
    "keys of one slot": b"}("
    + b"".join(long((n << 30) + 5) + b"N" for n in range(1, 100_000))
    + b"u",
    "an extension": b"\x82\x01",
    "an instance": b"(" + text("touch ran") + b"ios\nsystem\n",
    "an object": b"(" + global_("os.system") + text("touch ran") + b"o",
    "keywords": global_("os.system") + text("touch ran") + b"\x85}\x92",
    "a nested name": text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93",
    "a name by letters": text("builtins") + text("eval") + b"\x93" + text("1") + b"\x85R",
    "a name in Python 2": b"c__builtin__\neval\n" + text("1") + b"\x85R",
    "a state with a function": b"]" + b"}" + text("append") + global_("os.system") + b"sb",
    "a codec": global_("_codecs.encode") + text("x") + text("idna") + b"\x86R" + b")R",
    "a list as a function": b"])R",
    "a storage as a function": STORAGE + b")R",
    "a storage type as a function": b"ctorch\nFloatStorage\n)R",
    "a tensor of a list": REBUILD + b"](K\x01eR",
    "no arguments": REBUILD + b")R",
    "a dict of a number": global_("collections.OrderedDict") + b"K\x05\x85R",
    "a dict of a storage": global_("collections.OrderedDict") + STORAGE + b"\x85R",
    "a set as a key": b"}" + global_("builtins.set") + b")RNs",
    "names of great length": b"X"
    + struct.pack("<I", 4_000_000)
    + b"a" * 4_000_000
    + put(0)
    + b"0"
    + (get(0) + get(0) + b"\x930") * 50_000,
    "objects of numpy": global_("numpy.ndarray") + b")R" + (b"}b" * 100_000),
    "an array of laughs": global_("numpy.ndarray") + b")R(K\x01" + LAUGHS + b"NNNtb",
    "an array beyond its bytes": global_("numpy.ndarray")
    + b")R(K\x01"
    + long(2**61)
    + b"\x85"
    + global_("numpy.dtype")
    + text("f4")
    + b"\x85R\x89"
    + text("abcd")
    + b"tb",
    "an empty stack": b"0",
    "a mark that is missing": b"t",
    "a persistent id of another kind": text("storage") + b"Q",
    "a storage of a negative size": b"("
    + text("storage")
    + b"ctorch\nFloatStorage\n"
    + text("0")
    + text("cpu")
    + long(-1)
    + b"tQ",
}


def attack_zip(path, attack):
    """Writes a pickle as data.pkl of a zip archive."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", attack)
        archive.writestr("w/data/0", bytes(24))


def attack_legacy(path, attack):
    """Writes a pickle as the object of a legacy file."""
    storage = Storage("Float", "0", np.zeros(6, np.float32))
    nothing = {"a": tensor(storage, (6,), (1,))}
    legacy_file(path, nothing, [storage])
    assert pickled(nothing, (None,)) in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(pickled(nothing, (None,)), attack))


def attack_tar(path, attack):
    """Writes a pickle as the member `pickle` of a tar file."""
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("storages", pickled(0) + pickled([])),
            ("tensors", pickled(0)),
            ("pickle", attack),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def attack_pickle(path, attack):
    """Writes a bare pickle, like those with NumPy arrays."""
    path.write_bytes(attack)


def attack_script(path, attack):
    """Writes a pickle as data.pkl of a TorchScript archive."""
    attack_zip(path, attack)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("w/constants.pkl", b"")


def write_attacks(folder, containers):
    """Writes each pickle in the given number of containers, in rotation."""
    writers = (attack_zip, attack_legacy, attack_tar, attack_pickle, attack_script)
    for number, opcodes in enumerate(PICKLES.values()):
        for turn in range(number, number + containers):
            write = writers[turn % len(writers)]
            write(folder / f"{number}.{write.__name__}", b"\x80\x02" + opcodes + b".")


def write_bombs(folder):
    """Writes archives with false sizes, overlaps or very many members."""
    values = np.arange(6, dtype=np.float32)
    storage = Storage("Float", "0", values)
    state = {"a": tensor(storage, (6,), (1,))}
    content = bytearray(zip_file(folder / "count.zip", state, [storage]).read_bytes())
    end = content.rfind(b"PK\x05\x06")
    for name, at, size, value in (
        ("count.zip", end + 10, 2, 65_535),
        ("size.zip", end + 12, 4, 2**32 - 2),
        ("start.zip", end + 16, 4, 2**32 - 2),
        ("entry size.zip", content.find(b"PK\x01\x02") + 20, 8, 2**63 + 2**31),
        ("no name.zip", content.find(b"PK\x01\x02") + 28, 2, 65_535),
        ("entry start.zip", content.find(b"PK\x01\x02") + 42, 4, 2**32 - 2),
    ):
        changed = content.copy()
        changed[at : at + size] = value.to_bytes(size, "little")
        (folder / name).write_bytes(changed)
    # The second entry points to the bytes of the first.
    first = content.find(b"PK\x01\x02")
    second = content.find(b"PK\x01\x02", first + 4)
    changed = content.copy()
    changed[second + 42 : second + 46] = content[first + 42 : first + 46]
    (folder / "overlap.zip").write_bytes(changed)
    # A zip64 directory that starts beyond the maximum address.
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 2**64 - 1, 1)
    (folder / "far.zip").write_bytes(content[:end] + locator + content[end:])
    with zipfile.ZipFile(folder / "twice.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("w/data.pkl", pickled({}))
    with zipfile.ZipFile(folder / "many.zip", "w") as archive:
        archive.writestr("w/data.pkl", pickled({}))
        for number in range(60_000):
            archive.writestr(f"w/{number}", b"")
    # 8,000 big-endian tensors share one storage of 20 MB.
    large = Storage("Float", "0", np.zeros(5_000_000, np.float32))
    many = {str(number): tensor(large, (5_000_000,), (1,)) for number in range(8_000)}
    zip_file(folder / "shared.zip", many, [large], "big")
    zip_file(folder / "biases.zip", *biases_of_means(1_000))

    def tar(name, **contents):
        with tarfile.open(folder / name, "w") as archive:
            for member_name, content in contents.items():
                member = tarfile.TarInfo(member_name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    kind, views = Global("torch.FloatStorage"), pickled([])
    raw = pickled(1) + pickled((1, "cpu", kind)) + struct.pack("<q", 2) + bytes(8) + views

    def table(dimensions, *numbers):
        row = struct.pack("<i4x", dimensions) + struct.pack(f"<{len(numbers)}q", *numbers)
        return pickled(1) + pickled((2, 1, kind)) + row

    nothing, root = pickled(0), pickled({"a": PersistentId("2")})
    endless = pickled(2**60)
    rest = {"tensors": nothing, "pickle": root}
    tar("storages.tar", storages=endless, tensors=nothing, pickle=root)
    tar("tensors.tar", storages=nothing + views, tensors=endless, pickle=root)
    tar("dimensions.tar", storages=raw, tensors=table(-1), pickle=root)
    tar("shape.tar", storages=raw, tensors=table(1, 3, 1, 0), pickle=root)
    tar("stride.tar", storages=raw, tensors=table(1, 2, 2**62, 0), pickle=root)
    tar("negative.tar", storages=raw, tensors=table(1, 1, 1, -1), pickle=root)
    lies = raw.replace(struct.pack("<q", 2), struct.pack("<q", 2**61))
    tar("count.tar", storages=lies, tensors=table(1, 2, 1, 0), pickle=root)
    beyond = raw.removesuffix(views) + pickled([(3, 1, 1, 2)])
    tar("view.tar", storages=beyond, tensors=table(1, 2, 1, 0), pickle=root)
    tar("self.tar", storages=raw.removesuffix(views) + pickled([(3, 3, 0, 2)]), **rest)
    header = bytearray(tarfile.TarInfo("storages").tobuf())
    header[124:136] = b"-0000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (folder / "backwards.tar").write_bytes(header * 4)
    (folder / "headers.tar").write_bytes(
        b"".join(tarfile.TarInfo(str(number)).tobuf() for number in range(60_000))
    )


OUTSIDE = "../outside.h5"  # relative to the attack files


def virtual(file):
    layout = h5py.VirtualLayout((6,), np.float32)
    layout[:] = h5py.VirtualSource(OUTSIDE, "w", (6,))
    file.create_virtual_dataset("w", layout)


def claim(file, size, chunks=None):
    """Creates a dataset of `size` numbers without storing any data."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks:
        plist.set_chunk(chunks)
    space = h5py.h5s.create_simple((size,))
    h5py.h5d.create(file.id, b"w", h5py.h5t.NATIVE_FLOAT, space, plist)


def repeat(file):
    file["a"] = np.zeros(1000, np.float32)
    for name in "bcd":
        file[name] = file["a"]


def name_at_length(group):
    """Creates 1,000 arrays whose paths would take a gigabyte."""
    for _ in range(16):
        group = group.create_group("g" * 60_000)
    for number in range(1_000):
        group[str(number)] = np.zeros(1, np.float32)


def nest(group):
    for _ in range(3_000):
        group = group.create_group("g")


def branch(group):
    """Creates 16 groups with 131,070 paths to them."""
    for _ in range(16):
        group["a"] = group["b"] = below = group.file.create_group(None)
        group = below


def compress(file):
    file.create_dataset("w", data=np.zeros(5_000_000, np.float32), compression="gzip")


HDF5 = {
    "external": lambda file: file.create_dataset("w", (9,), "u1", external=[("/etc/passwd", 0, 9)]),
    "virtual": virtual,
    "external link": lambda file: file.update({"w": h5py.ExternalLink(OUTSIDE, "w")}),
    "soft link": lambda file: file.update({"w": h5py.SoftLink("/v")}),
    "3 GB": lambda file: claim(file, 750_000_000),
    "3 GB in one chunk": lambda file: claim(file, 750_000_000, (750_000_000,)),
    "compressed": compress,
    "repeated": repeat,
    "nested": nest,
    "long names": name_at_length,
    "branching": branch,
    "in itself": lambda file: file.update({"group": file["/"]}),
}


def write_hdf5_attacks(folder):
    """Writes HDF5 files with links, repeated or missing data, alone and in a `.keras` file."""
    outside = folder.parent / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["w"] = np.zeros(6, np.float32)
    for name, write in HDF5.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            write(file)
        with zipfile.ZipFile(folder / f"{name}.keras", "w") as archive:
            archive.write(folder / f"{name}.h5", "model.weights.h5")
    with zipfile.ZipFile(folder / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(300_000_000))
    # The contents of a config are neither inspected nor instantiated.
    layer = {"module": "os", "class_name": "system", "config": f"touch {folder.parent / 'ran'}"}
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 10**9}}
    with zipfile.ZipFile(folder / "config.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"layers": [layer, dense]}))
        archive.write(outside, "model.weights.h5")


WATCH = """
import re, sys, time
from pathlib import Path
from keras_resnet import weights

def memory(kind):
    return int(re.search(rf"{kind}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

for path in sorted(Path(sys.argv[1]).iterdir()):
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak, VmHWM
    before, start, said = memory("VmRSS"), time.process_time(), "read"
    try:
        weights.inspect(path)
    except weights.CheckpointError as error:
        said = "refused"
    except BaseException as error:
        said = repr(error)
    print(path.name, said, time.process_time() - start, memory("VmHWM") - before, sep="|")
"""


READ = ("shared.zip", "biases.zip", "config.keras")  # valid, or the config is not used


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("containers", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_attacks_end_soon_in_little_memory(containers, tmp_path, run_imported):
    folder = tmp_path / "attacks"
    folder.mkdir()
    write_attacks(folder, containers)
    write_bombs(folder)
    write_hdf5_attacks(folder)
    done = run_imported(WATCH, folder)
    rows = [line.split("|") for line in done.stdout.splitlines()]
    assert len(rows) == len(list(folder.iterdir())), done.stderr
    for name, said, seconds, megabytes in rows:
        assert said == ("read" if name in READ else "refused"), name
        assert float(seconds) < 2, name
        assert float(megabytes) < 200, name
    assert not (tmp_path / "ran").exists()


def tensors_of_one_hash(n):
    """Strides whose hashes collide; those of dimensions of size 1 can be any number."""
    storage = Storage("Byte", "0", np.zeros(4, np.uint8))
    strides = ([1 + (number >> bit) % 2 * (2**61 - 1) for bit in range(15)] for number in range(n))
    tensors = {
        str(number): tensor(storage, (1,) * 15, tuple(stride))
        for number, stride in enumerate(strides)
    }
    return tensors, [storage]


def networks(n):
    storage = Storage("Float", "0", np.zeros(4, np.float32))
    weight = {"a" * 900: tensor(storage, (4,), (1,))}
    return {str(number): {"a": {"b": dict(weight)}} for number in range(n)}, [storage]


def storages(n):
    every = [Storage("Float", str(number), np.zeros(1, np.float32)) for number in range(n)]
    return {storage.key: tensor(storage, (1,), (1,)) for storage in every}, every


def names_to_strip(n):
    values, every = storages(n)
    prefix = "module." * 100 + "encoder.stages.0.layers.0.shortcut.0."
    return {f"{prefix}{key}": value for key, value in values.items()}, every


def networks_side_by_side(n):
    """Many networks in one dict, each with stages and a first convolution of its own."""
    every = [Storage("Float", str(number), np.zeros(1, np.float32)) for number in range(n)]
    parts = ("conv1", "layer1.0.conv1", "layer2.0.conv1")
    kernels = {
        f"{storage.key}.{part}.weight": tensor(storage, (1,) * 4, (1,) * 4)
        for storage in every
        for part in parts
    }
    return kernels, every


def stages_in_sequences(n):
    """Many networks whose first stage follows a pooling layer in a sequence."""
    storage = Storage("Float", "0", np.zeros(1, np.float32))
    parts = ("layer0.0", "layer1.1.0.conv1", "layer2.0.conv1")
    names = [f"{number}.{part}.weight" for number in range(n) for part in parts]
    return {name: tensor(storage, (1,) * 4, (1,) * 4) for name in names}, [storage]


def heads_side_by_side(n):
    """Many candidates for the classifier, beside one network with many blocks."""
    storage = Storage("Float", "0", np.zeros(1, np.float32))
    parts = ("conv1", "layer1.0.conv1", "layer2.0.conv1")
    network = {f"{part}.weight": tensor(storage, (1,) * 4, (1,) * 4) for part in parts}
    network["layer2.0.bn2.weight"] = tensor(storage, (1,), (1,))
    for number in range(n):
        network[f"layer1.{number}.x"] = tensor(storage, (1,), (1,))
        network[f"{number}.fc.weight"] = tensor(storage, (1, 1), (1, 1))
    return network, [storage]


def kernels_of_parts(n):
    """Weight-normalized kernels of one large storage; those that do not fit are not computed."""
    storage = Storage("Float", "0", np.zeros(100_000, np.float32))
    kernels = {}
    for number in range(n):
        name = f"layer1.{number}.conv1.weight"
        kernels[f"{name}_v"] = tensor(storage, (100_000, 1, 1, 1), (1,) * 4)
        kernels[f"{name}_g"] = tensor(storage, (100_000, 1, 1, 1), (1,) * 4)
    return kernels, [storage]


def biases_of_means(n):
    """Biases and means of one large storage; those that do not fit are not computed."""
    storage = Storage("Float", "0", np.zeros(100_000, np.float32))
    parts = ("conv1", "layer1.0.conv1", "layer2.0.conv1")
    state = {f"{part}.weight": tensor(storage, (1,) * 4, (1,) * 4) for part in parts}
    for number in range(n):
        for name in ("conv1.bias", "bn1.running_mean"):
            state[f"layer1.{number}.{name}"] = tensor(storage, (100_000,), (1,))
    return state, [storage]


@pytest.fixture(scope="module")
def network():
    return keras_resnet.ResNet20()


def steps_of(function):
    """Returns the number of Python and C function calls, and the error message."""
    steps, said = 0, None

    def count(_, event, __):
        nonlocal steps
        steps += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        function()
    except CheckpointError as error:
        said = error
    finally:
        sys.setprofile(None)
    return steps, str(said)


@pytest.mark.parametrize("write", CONTAINERS)
@pytest.mark.parametrize(
    "content",
    [
        *(tensors_of_one_hash, networks, storages, names_to_strip),
        *(networks_side_by_side, stages_in_sequences, heads_side_by_side),
        *(kernels_of_parts, biases_of_means),
    ],
    ids=lambda f: f.__name__,
)
def test_steps_grow_linearly_with_the_file(content, write, network, tmp_path):
    counted = []
    for n in (1, 250, 500):  # the first call imports what is not loaded yet
        path = write(tmp_path / f"{n}.pth", *content(n))
        steps, said = steps_of(lambda path=path: weights.load(network, path))
        assert said != "None" and len(said) < 3000
        counted.append(steps)
    assert counted[2] < 2.2 * counted[1]


def test_groups_of_hdf5_twice_as_many_take_twice_the_steps(network, tmp_path):
    counted = []
    for n in (1, 250, 500):
        with h5py.File(tmp_path / f"{n}.h5", "w") as file:
            for number in range(n):
                file[f"layers/basic_block_{number}/conv2/vars/0"] = np.zeros(1)
        path = tmp_path / f"{n}.h5"
        counted.append(steps_of(lambda path=path: weights.load(network, path))[0])
    assert counted[2] < 2.2 * counted[1]


class Slices(bytes):
    """Counts the bytes that are copied by slicing."""

    copied = 0

    def __getitem__(self, key):
        part = super().__getitem__(key)
        Slices.copied += len(part)
        return Slices(part)


def test_zip_fields_are_not_copied_over_and_over():
    """A zip64 field that follows 16,000 empty fields."""
    from keras_resnet.weights.zip_file import _in_zip64

    extra = struct.pack("<2H", 9, 0) * 16_000 + struct.pack("<2HQ", 1, 8, 2**40)
    assert _in_zip64(Slices(extra), 2**32 - 1, 5) == [2**40, 5]
    assert Slices.copied < 100
