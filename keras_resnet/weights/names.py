"""Converts the tensor names of other libraries.

All names are converted to torchvision's on loading, anywhere in a name. The names of the stages and
of the first convolution are found by `structure`.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_resnet.layers import BATCH_NORM_EPSILON
from keras_resnet.weights.structure import BLOCK

# Counters that only training needs.
DROPPED = ("num_batches_tracked", "n_averaged")
# Wrappers of modules in PyTorch: DataParallel, compile, FSDP, checkpointing.
WRAPPER = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
    r"|(?:(?<=\.\d\.)|(?<=\.\d\d\.))(?:model|net)\."  # within a block
)
HUGGING_FACE, PYTORCHCV, PADDLE = "transformers", "pytorchcv", "PaddlePaddle"
TIMM_V2 = "timm's resnetv2"
DETECTRON, CAFFE2, BENCHMARK = "detectron2", "Caffe2", "maskrcnn_benchmark"
_MSRA_OR_TORCHVISION = (
    "MSRA's, with version='v1' and BGR in 0..255, and torchvision's, with version='v1.5' and "
    "normalised RGB"
)
# Libraries with two kinds of bottleneck networks that have equal names.
TWO_NETWORKS = {
    **dict.fromkeys((DETECTRON, CAFFE2, BENCHMARK), _MSRA_OR_TORCHVISION),
    PYTORCHCV: "its resnet50, with version='v1', and its resnet50b, with version='v1.5', both of "
    "normalised RGB",
}


def _next(match):
    return f"{match[1]}{int(match[2]) + 1}{match[3]}"


def _unit(match):
    return f"{match[1]}{int(match[2]) - 1}."


def _block_of_timm(match):
    return f"{match[1]}layer{int(match[2]) + 1}.{match[3]}.{'bn' if match[4] else ''}"


# (library, pattern, replacement), applied in order to every name that is not torchvision's.
RULES = (
    # ResNetForImageClassification and ResNetModel, numbered from 0.
    (HUGGING_FACE, r"(^|\.)embedder\.embedder\.convolution\.", r"\1conv1."),
    (HUGGING_FACE, r"(^|\.)embedder\.embedder\.normalization\.", r"\1bn1."),
    (
        HUGGING_FACE,
        r"((?:^|\.))encoder\.stages\.(\d)\.layers(\.\d{1,4}\.)",
        lambda match: _next(match).replace(match[1], f"{match[1]}layer", 1),
    ),
    (HUGGING_FACE, r"\.shortcut\.convolution\.", ".downsample.0."),
    (HUGGING_FACE, r"\.shortcut\.normalization\.", ".downsample.1."),
    (
        HUGGING_FACE,
        r"(\.)layer\.(\d)\.convolution(\.)",
        lambda m: _next(m).replace(".", ".conv", 1),
    ),
    (
        HUGGING_FACE,
        r"(\.)layer\.(\d)\.normalization(\.)",
        lambda m: _next(m).replace(".", ".bn", 1),
    ),
    # Detectron, written by Caffe2: only the first normalization has the name of its stage.
    (CAFFE2, r"^res_conv1_bn_", "stem.conv1.norm."),
    (CAFFE2, r"^conv1_(?=[wb]$)", "stem.conv1."),
    (CAFFE2, r"^(?:pred|fc1000)_(?=[wb]$)", "fc."),
    (CAFFE2, r"^(res\d)_(\d{1,4})_branch1_(bn_)?", r"\1.\2.shortcut.\3"),
    (
        CAFFE2,
        r"^(res\d)_(\d{1,4})_branch2([abc])_(bn_)?",
        lambda m: f"{m[1]}.{m[2]}.conv{'abc'.index(m[3]) + 1}.{m[4] or ''}",
    ),
    (CAFFE2, r"^((?:stem|res\d\.\d{1,4})\..*\.)bn_", r"\1norm."),
    (CAFFE2, r"^((?:stem|res\d\.\d{1,4}|fc)\..*)\b(?:w|s)$", r"\1weight"),
    (CAFFE2, r"^((?:stem|res\d\.\d{1,4}|fc)\..*)\bb$", r"\1bias"),
    (CAFFE2, r"^((?:stem|res\d\.\d{1,4})\..*)\brm$", r"\1running_mean"),
    (CAFFE2, r"^((?:stem|res\d\.\d{1,4})\..*)\briv$", r"\1running_var"),
    # The stem is a module, as in detectron2, but the blocks are torchvision's.
    (BENCHMARK, r"(^|\.)stem\.bn1\.", r"\1stem.bn1."),
    # Batch normalization is inside the convolution.
    (DETECTRON, r"\.conv([123])\.norm\.", r".bn\1."),
    (DETECTRON, r"\.shortcut\.norm\.", ".downsample.1."),
    (DETECTRON, r"\.shortcut\.(weight|bias)$", r".downsample.0.\1"),
    # Units are numbered from 1; each convolution is in a block with its normalization.
    (PYTORCHCV, r"(^|\.)init_block\.conv\.conv\.", r"\1conv1."),
    (PYTORCHCV, r"(^|\.)init_block\.conv\.bn\.", r"\1bn1."),
    (PYTORCHCV, r"(\bstage\d\.)unit(\d{1,4})\.(?:body\.)?", _unit),
    (PYTORCHCV, r"(\bstage\d\.\d{1,4}\.)conv(\d)\.conv\.", r"\1conv\2."),
    (PYTORCHCV, r"(\bstage\d\.\d{1,4}\.)conv(\d)\.bn\.", r"\1bn\2."),
    (PYTORCHCV, r"(\bstage\d\.\d{1,4}\.)identity_conv\.conv\.", r"\1downsample.0."),
    (PYTORCHCV, r"(\bstage\d\.\d{1,4}\.)identity_conv\.bn\.", r"\1downsample.1."),
    # Only the statistics have different names.
    (PADDLE, r"\b(bn\d|downsample\.1)\._mean$", r"\1.running_mean"),
    (PADDLE, r"\b(bn\d|downsample\.1)\._variance$", r"\1.running_var"),
    # Pre-activation networks, where normalization comes first.
    (
        TIMM_V2,
        r"(^|\.)stages\.(\d)\.blocks\.(\d{1,4})\.(?:(norm)|(?=conv|downsample))",
        _block_of_timm,
    ),
    (TIMM_V2, r"\.downsample\.conv\.", ".downsample.0."),
    # OpenMMLab's deep stem is one sequence that includes the last normalization.
    ("", r"(^|\.)stem\.([01346])\.(?=weight|bias|running)", r"\1conv1.\2."),
    ("", r"(^|\.)stem\.7\.", r"\1bn1."),
    # The CIFAR networks of akamaster/pytorch_resnet_cifar10.
    ("", r"\.shortcut\.([01])\.", r".downsample.\1."),
)


@dataclasses.dataclass(frozen=True)
class Computed:
    """An array that is computed from two others, once it is known to fit.

    Many arrays of a file may share a storage, so computing all of them could exhaust the memory.

    Args:
        way: "weight_norm" (of magnitude and direction), "pruned" (of a kernel and a mask) or
            "biased" (of a normalization's mean and the bias of the preceding convolution).
        parts: The two arrays.
    """

    way: str
    parts: tuple[np.ndarray, np.ndarray]

    def __getattr__(self, name: str) -> Any:
        """Returns the attribute of the larger part: shape, dtype and so on."""
        if name not in ("shape", "ndim", "size", "dtype", "strides", "__array_interface__"):
            raise AttributeError(name)
        return getattr(self.parts[self.way == "weight_norm"], name)

    def value(self) -> np.ndarray:
        """Computes the array, float32."""
        one, other = (np.asarray(part, np.float32) for part in self.parts)
        if self.way == "pruned":
            return one * other
        if self.way == "biased":
            return one - other
        axes = tuple(range(one.size > 1, other.ndim))
        return other * (one / np.sqrt(np.square(other).sum(axes, keepdims=True)))


WAYS = {
    ("weight_norm", ".weight_g", ".weight_v"),
    ("weight_norm", ".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    ("pruned", ".weight_orig", ".weight_mask"),
}


def renamed(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Converts names to torchvision's, except for prefixes; also returns the libraries found.

    Counters are dropped, and kernels that were saved as two tensors are merged.
    """
    kept = {key: value for key, value in tensors.items() if not key.endswith(DROPPED)}
    plain = {key: WRAPPER.sub("", key) for key in kept}
    if len({*plain.values()}) < len(plain):  # a wrapped network next to another one
        plain = {key: key for key in kept}
    state, libraries = {}, set()
    for key, value in kept.items():
        name = plain[key]
        match = BLOCK.fullmatch(name)
        rules = () if match and not match[5].startswith("_") else RULES
        for library, pattern, replacement in rules:
            name, count = re.subn(pattern, replacement, name)
            if count and library:
                libraries.add(library)
        state[name if name not in state else key] = value
    if TIMM_V2 in libraries:
        state = _stem_and_head_of_timm(state)
    if PADDLE in libraries:  # its matrices are transposed
        state = {key: value.T if value.ndim == 2 else value for key, value in state.items()}
    return _put_together(state), libraries


def _stem_and_head_of_timm(state):
    """Converts timm's pre-activation networks, whose classifier is a convolution."""
    named = {}
    for key, value in state.items():
        name = re.sub(r"(^|\.)stem\.conv\.", r"\1conv1.", key)
        name = re.sub(r"(^|\.)stem\.(conv|norm)([1-3])\.", _place_in_stem, name)
        if name.endswith("head.fc.weight") and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]
        named[name if name not in named else key] = value
    return named


def _place_in_stem(match):
    """Returns the index in timm's sequence, with a ReLU after each normalization."""
    return f"{match[1]}conv1.{3 * int(match[3]) - (3 if match[2] == 'conv' else 2)}."


def _put_together(state):
    """Replaces each kernel that was saved as two tensors by a `Computed`."""
    found = {}
    for key in state:
        for way, first, second in WAYS:
            other = key.removesuffix(first) + second
            if key.endswith(first) and other in state and _are_parts(state, way, key, other):
                found[key] = other, f"{key.removesuffix(first)}.weight", way
    seconds = {other for other, _, _ in found.values()}
    whole = {}
    for key, value in state.items():
        if key in found:
            other, name, way = found[key]
            whole[name] = Computed(way, (value, state[other]))
        elif key not in seconds:
            whole[key] = value
    return whole


def _are_parts(state, way, key, other):
    one, two = state[key], state[other]
    if way == "pruned":
        return one.shape == two.shape
    return two.ndim > 1 and one.shape in ((), (1,) * two.ndim, (len(two), *(1,) * (two.ndim - 1)))


def with_statistics(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds the statistics 0 and 1, which Detectron's frozen batch normalization does not have."""
    state = dict(state)
    for key in [key for key in state if re.search(r"\b(bn\d|downsample\.1)\.weight$", key)]:
        layer, size = key.removesuffix("weight"), state[key].shape
        state.setdefault(f"{layer}running_mean", np.broadcast_to(np.float32(0), size))
        variance = np.float32(1 - BATCH_NORM_EPSILON)
        state.setdefault(f"{layer}running_var", np.broadcast_to(variance, size))
    return state


def biases_into_means(state: dict[str, Any]) -> dict[str, Any]:
    """Moves the bias of each convolution to the mean of the following batch normalization.

    The mean is subtracted, so the result is the same; torchvision's convolutions have no bias. In
    pre-activation networks, normalization precedes the convolution, and biases are kept.
    """
    state = dict(state)
    if "norm.weight" in state:
        return state
    for key in list(state):
        match = re.fullmatch(r"(.*)\b(conv|downsample\.)(\d)\.bias", key)
        if match:
            before, kind, number = match.groups()
            norm = f"bn{number}" if kind == "conv" else f"downsample.{int(number) + 1}"
            name = f"{before}{norm}.running_mean"
            fits = name in state and state[name].shape == state[key].shape
            if fits and not np.iscomplexobj(state[key]):
                state[name] = Computed("biased", (state[name], state.pop(key)))
    return state
