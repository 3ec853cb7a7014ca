"""Recognizes unsupported weights files of other libraries, for a specific error message."""

import mmap

from keras_resnet.weights.errors import SAVE_A_STATE_DICT, UnsafeFileError

TABLE_END = bytes.fromhex("57fb808b247547db")  # end of the tables in TensorFlow checkpoints
MAPS, TEXTS = {*range(0x81, 0x90), 0xDE, 0xDF}, {*range(0xA1, 0xC0), 0xD9}


def refuse_other_kind(mapped: mmap.mmap) -> None:
    """Raises an UnsafeFileError for files of TensorFlow and flax."""
    if mapped[-8:] == TABLE_END:
        raise UnsafeFileError(
            "it is a checkpoint of TensorFlow",
            "TF-slim's resnet_v1 and resnet_v2 are different networks: they stride in the last "
            "block of a stage, and pad differently before pooling. Choose weights of "
            "torchvision, timm or keras.applications.",
        )
    if mapped[0] in MAPS and len(mapped) > 1 and mapped[1] in TEXTS:
        raise UnsafeFileError(
            "it is a msgpack file, as written by flax",
            "Save its weights with safetensors, with the parameter names of transformers or timm "
            "in PyTorch, or choose the library's .safetensors or .bin file.",
        )


def refuse_other_zip(names: set[str]) -> None:
    """Raises an UnsafeFileError for zip files of torch.export and NumPy, by their members."""
    if any(name.endswith((".npy", ".npy.npz")) for name in names):
        if any("standardized_conv2d" in name for name in names):
            raise UnsafeFileError(
                "it is an .npz file of BiT",
                "BiT is a different network, with standardized kernels and group normalization.",
            )
        raise UnsafeFileError(
            "it is an .npz file of NumPy",
            "Pass its content:  keras_resnet.weights.load(model, dict(numpy.load(path))).",
        )
    last = {name.rpartition("/")[2] for name in names}
    if last & {"archive_format", "serialized_exported_program.json", "serialized_state_dict.pt"}:
        raise UnsafeFileError(
            "it is a .pt2 of torch.export",
            SAVE_A_STATE_DICT.replace("model.", "torch.export.load(path)."),
        )
