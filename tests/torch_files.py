"""Writes files in all formats of torch.save, without torch.

A container is a function from (path, value, storages) to the path. In `value`, tensors are
`tensor(storage, shape, strides, offset)`.
"""

import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Global:
    """Pickled as the bare name of a global."""

    def __init__(self, name):
        self.name = name


class Call:
    """Pickled as a call of a global, followed by its state, if any."""

    state = None

    def __init__(self, name, *args):
        self.function, self.args = Global(name), args


class Storage:
    """Pickled as a persistent id."""

    def __init__(self, kind, key, values, view=()):
        self.kind, self.key, self.values, self.view = kind, key, values, view


class PersistentId:
    """Pickled as a persistent id that is `value` itself."""

    def __init__(self, value):
        self.value = value


class TorchPickler(pickle._Pickler):
    """Writes the same opcodes as torch.save, based on Python's own pickler."""

    no_view = ()  # the view of a storage that is not a view

    def persistent_id(self, value):
        if isinstance(value, Storage):
            kind = Global(f"torch.{value.kind}Storage")
            return (
                "storage",
                kind,
                value.key,
                "cpu",
                len(value.values),
                *(value.view or self.no_view),
            )
        return value.value if isinstance(value, PersistentId) else None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Global):
            module, name = value.name.rsplit(".", 1)
            self.write(f"c{module}\n{name}\n".encode())
        elif isinstance(value, Call):
            self.save(value.function)
            self.save(value.args)
            self.write(pickle.REDUCE)
            if value.state is not None:
                self.save(value.state)
                self.write(pickle.BUILD)
        else:
            super().save(value, save_persistent_id)


def pickled(value, no_view=()):
    stream = io.BytesIO()
    pickler = TorchPickler(stream, protocol=2)
    pickler.no_view = no_view
    pickler.dump(value)
    return stream.getvalue()


def tensor(storage, shape, strides, offset=0, function="_rebuild_tensor_v2"):
    return Call(f"torch._utils.{function}", storage, offset, shape, strides, False, {})


def zip_file(path, value, storages, order=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("weights/data.pkl", pickled(value))
        if order:
            archive.writestr("weights/byteorder", order)
        for storage in storages:
            archive.writestr(f"weights/data/{storage.key}", storage.values.tobytes())
        archive.writestr("weights/version", "3\n")
    return path


def legacy_file(path, value, storages, order="<", little_endian=True):
    info = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
    parts = [LEGACY_MAGIC, 1001, info, value, [storage.key for storage in storages]]
    content = b"".join(pickled(part, no_view=(None,)) for part in parts)
    for storage in storages:
        content += struct.pack(f"{order}q", len(storage.values)) + storage.values.tobytes()
    path.write_bytes(content)
    return path


def tar_file(path, value, storages):
    """Writes a file of torch 0.1: tensors are outside of the pickle, which refers to them.

    Modification times have fractions of a second, so that tarfile writes pax headers.
    """
    tensors = []

    def described(value):
        if isinstance(value, dict):
            return {key: described(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(described, value))
        if isinstance(value, Call) and value.function.name.startswith("torch._utils._rebuild_te"):
            tensors.append((value.args, 1000 + len(tensors)))
            return PersistentId(str(tensors[-1][1]))
        if isinstance(value, Call):
            call = Call(value.function.name, *map(described, value.args))
            call.state = described(value.state)
            return call
        return value

    value = described(value)
    kinds = [Global(f"torch.{storage.kind}Storage") for storage in storages]
    raw = pickled(len(storages))
    for storage, kind in zip(storages, kinds, strict=True):
        raw += pickled((int(storage.key), "cpu", kind))
        raw += struct.pack("<q", len(storage.values)) + storage.values.tobytes()
    views, table = [], pickled(len(tensors))
    for (storage, offset, shape, strides, *_), key in tensors:
        root = int(storage.key)
        if storage.view:
            _, start, size = storage.view[0]
            views.append((500 + key, root, start, size))
            root = 500 + key
        table += pickled((key, root, Global(f"torch.{storage.kind}Tensor")))
        table += struct.pack("<i4x", len(shape))
        table += struct.pack(f"<{2 * len(shape) + 1}q", *shape, *strides, offset)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in (
            ("sys_info", pickled({"protocol_version": 1000, "little_endian": True})),
            ("pickle", pickled(value)),
            ("tensors", table),
            ("storages", raw + pickled(views)),
        ):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1.5
            archive.addfile(member, io.BytesIO(content))
    return path


def contiguous(shape):
    return tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))


def state_dict_file(path, state, write=zip_file):
    storages = [
        Storage("Float", str(number), values.ravel())
        for number, values in enumerate(state.values())
    ]
    tensors = {
        key: tensor(storage, values.shape, contiguous(values.shape))
        for (key, values), storage in zip(state.items(), storages, strict=True)
    }
    return write(path, tensors, storages)


CONTAINERS = [zip_file, legacy_file, tar_file]
