"""The globals that pickles of torch.save may refer to, and their replacements: `find_global`.

These are tensors and their parts. Anything else is ignored: see `unpickler.Opaque`.
"""

from typing import Any

from keras_resnet.weights.errors import UnsafeFileError
from keras_resnet.weights.pytorch import numpy_arrays
from keras_resnet.weights.pytorch.tensors import (
    DTYPES,
    NEWER_DTYPES,
    QUANTIZED,
    Parameter,
    StorageType,
    rebuild_tensor,
    rebuild_tensor_v3,
)
from keras_resnet.weights.pytorch.unpickler import make_dict


class ScriptObject:
    """A TorchScript module, whose class is defined in the file; here it is just a dict."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = {}

    def set_state(self, state: Any) -> None:
        """Sets its attributes by name."""
        self.state = state


def _rebuild_parameter(data=None, *_):
    return Parameter() if data is None else data


def _ordered_dict(pairs=(), *_):
    return make_dict([(key, value) for key, value in pairs])


def _size(dimensions=(), *_):
    if not isinstance(dimensions, tuple):
        raise UnsafeFileError("it has a torch.Size that is not made of a tuple")
    return dimensions


_TYPES = {**DTYPES, **QUANTIZED}
GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": lambda *_: {},
    "collections.deque": lambda *_: [],
    "torch.Size": _size,
    "torch.nn.parameter.Parameter": _rebuild_parameter,
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch.storage.UntypedStorage": StorageType(None),
    "torch.storage.TypedStorage": StorageType(None),
    **{
        f"torch.{device}{name}{kind}": StorageType(dtype)
        for device in ("", "cuda.")
        for name, dtype in _TYPES.items()
        for kind in ("Storage", "Tensor")
    },
    **{f"torch.{dtype.name}": StorageType(dtype) for dtype in [*DTYPES.values(), *NEWER_DTYPES]},
    **numpy_arrays.GLOBALS,
}


def find_global(name: str) -> Any:
    """Returns the replacement of a global that tensors need; None for any other."""
    return ScriptObject if name.startswith("__torch__.") else GLOBALS.get(name)
