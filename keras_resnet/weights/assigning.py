"""Assigns arrays to a model's variables, all of them or none: `assign`."""

import fnmatch
import logging
import mmap
import re
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from keras_resnet.weights.architecture import call_of, recognise
from keras_resnet.weights.errors import CheckpointError, listed
from keras_resnet.weights.names import Computed
from keras_resnet.weights.state_dict import TO_KERAS, TO_TORCH, variables_by_key

logger = logging.getLogger("keras_resnet")

HEAD = ("fc.weight", "fc.bias")
STEMS = ("conv1.weight", "conv1.0.weight")  # with one convolution, and with several
BACKBONE = re.compile(r"(conv|bn|layer)\d")


def assign(
    model: keras.Model,
    state: dict[str, np.ndarray],
    source: str,
    *,
    head: str = "strict",
    first_conv: str = "strict",
    ignore: Sequence[str] = (),
    unreadable: Mapping[str, str] | None = None,
) -> None:
    """Assigns the arrays of `state` to the model's variables: all of them, or none.

    `state` is as in `Weights`, `source` the file's name, `unreadable` as in `Found`. The other
    arguments and the CheckpointError are as for `load`.
    """
    check_choice("head", head, "skip")
    check_choice("first_conv", first_conv, "adapt")
    variables, state = _wanted(variables_by_key(model), state, source, skip_head=head == "skip")
    stem = _stem(variables)
    if first_conv == "adapt" and stem and getattr(state.get(stem), "ndim", 0) == 4:
        state[stem] = _adapt_channels(_plain(state[stem]), variables[stem].shape[2])
    _check_fit(model, variables, state, source, ignore, unreadable or {})
    for key, variable in variables.items():
        held = _plain(state[key])
        array = held.astype(variable.dtype, copy=held.ndim == 1)
        if array.ndim > 1:  # by the backend, which is more than twice as fast as NumPy
            array = keras.ops.transpose(array, TO_KERAS[array.ndim])
        variable.assign(array)
        _let_go(held)


def check_backbone(
    model: keras.Model, state: dict[str, np.ndarray], source: str, ignore: Sequence[str] = ()
) -> None:
    """Raises a CheckpointError, as `assign` does, if anything but the head does not fit."""
    variables, state = _wanted(variables_by_key(model), state, source, skip_head=True)
    _check_fit(model, variables, state, source, ignore, {})


def check_choice(argument: str, value: object, other: str) -> None:
    """Raises a ValueError if an argument is neither "strict" nor its other value."""
    if value not in ("strict", other):
        raise ValueError(
            f"{argument} should be 'strict' or {other!r}. Received: {argument}={value!r}"
        )


def _wanted(variables, state, source, *, skip_head):
    """Returns the variables and arrays to compare, without the head if it is skipped or missing."""
    without_top = not any(key in variables for key in HEAD)
    before = (key for key in _before_head(state) if key not in variables)
    ignored = [*(key for key in HEAD if key in state), *before]
    if without_top and ignored:
        logger.warning("%s: its head (%s) was not loaded.", source, listed(ignored))
    left_out = {*HEAD, *ignored} if without_top or skip_head else ()
    return (
        {key: variable for key, variable in variables.items() if key not in left_out},
        {key: array for key, array in state.items() if key not in left_out},
    )


def _before_head(state):
    """Lists tensors as wide as the features outside the stages: a layer before the file's head."""
    features = getattr(state.get(HEAD[0]), "shape", ())[1:]
    shapes = (features, features * 2) if features else ()
    return [k for k, array in state.items() if array.shape in shapes and not BACKBONE.match(k)]


def _check_fit(model, variables, state, source, ignore, unreadable):
    """Raises a CheckpointError that lists the keys that do not fit, if there are any."""
    shapes = {key: _mismatch(variables[key], state[key]) for key in variables.keys() & state.keys()}
    misshapen = {key: said for key, said in shapes.items() if said}
    missing = [key for key in variables if key not in state]
    unused = [key for key in state if key not in variables and not _is_one_of(key, ignore)]
    odd = [f"{key} is {unreadable[key]}" for key in missing if key in unreadable]
    if odd:
        raise CheckpointError(
            f"{source} does not fit the model {model.name!r}, which is unchanged: {listed(odd)}, "
            "not a plain tensor. Save dense floating-point tensors: tensor.to_dense(), "
            "tensor.dequantize()."
        )
    if not (misshapen or missing or unused):
        return
    lines = {
        "missing from the file": missing,
        "unused by the model": unused,
        "with another shape": [f"{key} is {said}" for key, said in misshapen.items()],
    }
    raise CheckpointError(
        f"{source} does not fit the model {model.name!r}, which is unchanged. "
        + _advice(variables, state, missing, unused, misshapen)
        + "".join(
            f"\n{len(keys)} {title}: {listed(sorted(keys))}"
            for title, keys in lines.items()
            if keys
        )
    )


def _advice(variables, state, missing, unused, misshapen):
    """Suggests what to do about a file that does not fit."""
    wrong, stem = {*missing, *unused, *misshapen}, _stem(variables)
    if wrong == {stem} and _is_adaptable(state.get(stem), variables.get(stem)):
        return "For other channels, pass first_conv='adapt' to the builder or to weights.load."
    keep = "build it without weights and call keras_resnet.weights.load(model, path, head='skip'"
    if wrong <= {*HEAD}:
        return f"To keep the model's own head, {keep})."
    if wrong <= {stem, *HEAD} and _is_adaptable(state.get(stem), variables.get(stem)):
        return f"To keep the model's own head, {keep}, first_conv='adapt')."
    if not misshapen and {*missing} <= {*HEAD} and not any(map(BACKBONE.match, unused)):
        skip = f", and to keep the model's own head, {keep})" if missing else ""
        ignore = f"pass ignore=[{unused[0][:80]!r}{', ...' if unused[1:] else ''}] to ignore them"
        return (
            "The backbone fits. If the network does not need the unused keys, save the file "
            f"without them or {ignore}{skip}."
        )
    found = recognise(state)
    if found.variant is None:
        again = f", or pass ignore=[{unused[0][:60]!r}, ...]" if unused else ""
        again = "" if missing or misshapen else again
        return (
            f"It looks like {found.text}, which is not a network of this package: choose "
            f"another{again}."
        )
    ours = recognise({key: np.broadcast_to(0, _expected(var)) for key, var in variables.items()})
    if (found.variant, found.shortcut) != (ours.variant, ours.shortcut):
        return f"It looks like {found.text}: load it into {call_of(found)}."
    return (
        f"It looks like {found.text}, like the model, but some tensors are missing or changed: "
        "save the whole state_dict again, or choose another file."
    )


def _stem(variables):
    """Returns the key of the first convolution, if there is one."""
    return next((key for key in STEMS if key in variables), "")


def _plain(array):
    return array.value() if isinstance(array, Computed) else array


def _is_one_of(key, patterns):
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def _is_adaptable(kernel, variable):
    """Whether the first kernel and its variable differ only in the number of input channels."""
    if kernel is None or variable is None or np.iscomplexobj(kernel) or kernel.ndim != 4:
        return False
    expected = _expected(variable)
    return (kernel.shape[0], *kernel.shape[2:]) == (expected[0], *expected[2:])


def _expected(variable):
    """Returns the shape of a variable in PyTorch's order of axes."""
    return tuple(variable.shape[axis] for axis in TO_TORCH[len(variable.shape)])


def _mismatch(variable, array):
    """Describes an array that does not fit the variable; None if it fits."""
    if array.shape != _expected(variable):
        return f"{array.shape}, not {_expected(variable)}"
    return "of complex numbers" if np.iscomplexobj(array) else None


def _let_go(array):
    """Releases the memory of an array in a mapped file; it is read again when needed."""
    mapped = array
    while not isinstance(mapped, mmap.mmap):
        mapped = getattr(mapped, "obj", getattr(mapped, "base", None))
        if mapped is None:
            return
    if hasattr(mapped, "madvise"):
        start = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
        page = start // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_DONTNEED, page, start + array.nbytes - page)


def _adapt_channels(kernel, channels):
    """Adapts a (filters, channels, height, width) kernel to another number of input channels."""
    if channels == 1:
        return kernel.sum(axis=1, keepdims=True)
    held = kernel.shape[1]
    return kernel[:, np.arange(channels) % max(held, 1)] * (held / channels)
