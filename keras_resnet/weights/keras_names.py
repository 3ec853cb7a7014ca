"""Converts the names in Keras files, both of this package and of keras.applications' ResNets.

The latter are of two kinds: ResNet50, 101 and 152, and ResNet50V2, ... with pre-activation blocks.

Arrays are identified by their paths in the file; no Keras objects are created, so that a file
cannot determine what is created, or how large. In keras.applications, all convolutions of the first
kind and some of the second have a bias, and the epsilon of batch normalization differs.
"""

import re

import numpy as np

from keras_resnet.layers import BATCH_NORM_EPSILON
from keras_resnet.weights.errors import CheckpointError
from keras_resnet.weights.state_dict import LEAVES, TO_TORCH, to_torch

# Blocks per stage of keras.applications' networks, by their number of convolutions.
APPLICATIONS = {53: (3, 4, 6, 3), 104: (3, 4, 23, 3), 155: (3, 8, 36, 3)}
APPLICATIONS_EPSILON = 1.001e-5
# Order of numbered variables: the first one or two for a convolution, all for normalization.
NUMBERED = ("weight", "bias", "running_mean", "running_var")
# Convolutions outside the blocks, and their normalizations, by their number.
STEMS = {
    1: (("conv1", "bn1"),),
    3: (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")),
}
STEMS |= {number + 1: (*stem, ("maxpool.0", "maxpool.1")) for number, stem in STEMS.items()}
# Layers in blocks with other names in Keras files.
SUBLAYERS = {
    **{"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"},
    **{"downsample_1": "downsample.1", "downsample_2": "downsample.2"},
    **{f"channel_attention/{part}": f"se.{part}" for part in ("fc1", "fc2", "conv")},
}


def of_applications(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the arrays of a Keras file, by path, are from keras.applications."""
    if _numbered(arrays):
        return _convolutions(arrays) in APPLICATIONS
    return any("conv1_conv/" in path for path in arrays)


def of_applications_v2(arrays: dict[str, np.ndarray]) -> bool:
    """Whether they are from its ResNet50V2, 101V2 or 152V2."""
    if not _numbered(arrays):
        return any("post_bn/" in path for path in arrays)
    convolutions = _convolutions(arrays)
    # One before each convolution, except for the stem and the four shortcuts, and one at the end.
    v2 = _numbers(arrays, "batch_normalization") == convolutions - 4
    return v2 and convolutions in APPLICATIONS


def as_pytorch(arrays: dict[str, np.ndarray], source: object) -> dict[str, np.ndarray]:
    """Converts the arrays of a Keras file, by path, to torchvision's names and layout.

    Arrays of unknown layers keep their paths as names. The different epsilon of keras.applications
    is added to its variances.

    Raises:
        CheckpointError: if two arrays get the same name.
    """
    theirs = of_applications(arrays)
    name_of = _v2_name if of_applications_v2(arrays) else _torchvision_name
    names = (_by_number if _numbered(arrays) else _by_name)(arrays, name_of if theirs else None)
    state: dict[str, np.ndarray] = {}
    for path, key in names.items():
        if key in state:
            raise CheckpointError(
                f"{source} holds {key[:80]} twice, probably from two networks. Save a single "
                "network."
            )
        state[key] = to_torch(arrays[path]) if arrays[path].ndim in TO_TORCH else arrays[path]
        if theirs and key.endswith(".running_var"):
            state[key] = state[key] + (APPLICATIONS_EPSILON - BATCH_NORM_EPSILON)
    return state


def _convolutions(arrays):
    """Counts the convolutions of numbered layers that are not in blocks."""
    return _numbers(arrays, "conv2d")


def _numbers(arrays, kind):
    layer = re.compile(rf"layers/(?:.*/layers/)?({kind}(?:_\d+)?)/vars/0")
    return len({match[1] for match in map(layer.fullmatch, arrays) if match})


def _numbered(arrays):
    """Whether Keras 3 wrote the file, which numbers the layers of a kind instead of naming them."""
    return any(path.startswith("layers/") for path in arrays)


def _by_number(arrays, name_of):
    """Converts the paths of Keras 3, with numbers: `layers/bottleneck_block_1/bn1/vars/0`."""
    names, places = {}, {}
    for path in arrays:
        match = re.fullmatch(r"(?:.*/)?layers/([^/]+(?:/[^/]+){0,2})/vars/([0-3])", path)
        if not path.startswith("layers/") or "/seed_generator/" in path:
            continue  # of the optimizer and of dropout
        if match:
            places[path] = match[1], NUMBERED[int(match[2])]
        else:
            names[path] = path
    if name_of:
        layers = _names_of_applications(APPLICATIONS[_convolutions(arrays)], name_of)
    else:
        layers = _names_of_ours({place: arrays[path].shape for path, place in places.items()})
    for path, (layer, leaf) in places.items():
        names[path] = f"{layers.get(layer, layer.replace('/', '.'))}.{leaf}"
    return names


def _names_of_ours(shapes):
    """Blocks are numbered consecutively; the number of filters changes with each stage."""
    blocks = {}
    for layer, _ in shapes:
        match = re.fullmatch(
            r"((?:preactivation_)?(?:basic|bottleneck)_block(?:_(\d{1,4}))?)/[\w/]+", layer
        )
        if match:
            blocks[match[1]] = int(match[2] or 0)
    count = len({layer for layer, _ in shapes if re.fullmatch(r"conv2d(_\d)?", layer)})
    names, stage, number, before = {"dense": "fc"}, 0, 0, None
    for place, (convolution, normalization) in enumerate(STEMS.get(count, STEMS[1])):
        suffix = f"_{place}" if place else ""
        names[f"conv2d{suffix}"] = convolution
        names[f"batch_normalization{suffix}"] = normalization
    if any(
        block.startswith("preactivation") for block in blocks
    ):  # the last normalization is elsewhere
        names = {layer: "norm" if name == "bn1" else name for layer, name in names.items()}
    for block in sorted(blocks, key=blocks.__getitem__):
        basic = shapes.get((f"{block}/conv2", "weight"))
        filters = shapes.get((f"{block}/conv3", "weight"), basic or ())[-1:]
        stage, number = (stage, number + 1) if filters == before else (stage + 1, 0)
        names[block], before = f"layer{stage}.{number}", filters
    for layer, _ in shapes:
        block, _, sublayer = layer.partition("/")
        if sublayer and block in blocks:
            names[layer] = f"{names[block]}.{SUBLAYERS.get(sublayer, sublayer)}"
    return names


def _names_of_applications(depths, name_of):
    """Layers of a kind are numbered consecutively."""
    convs, bns = ["conv1_conv"], ["conv1_bn"]
    for stage, depth in enumerate(depths, 2):
        for number in range(1, depth + 1):
            block = f"conv{stage}_block{number}"
            # In Keras, the shortcut is next to the last convolution.
            order = "1203" if number == 1 else "123"
            convs += [f"{block}_{place}_conv" for place in order]
            bns += [f"{block}_{place}_bn" for place in ("preact", *order)]
    bns.append("post_bn")
    names = {"dense": "fc"}
    for kind, layers in (("conv2d", convs), ("batch_normalization", bns)):
        known = filter(None, map(name_of, layers))  # each network has only some of them
        names |= {f"{kind}_{number}" if number else kind: name for number, name in enumerate(known)}
    return names


def _by_name(arrays, name_of):
    """Converts the paths of Keras 2, with names: `model_weights/conv1_bn/conv1_bn/gamma:0`."""
    top = "model_weights/"  # next to those of the optimizer
    paths = [path for path in arrays if path.startswith(top)] or list(arrays)
    names = {}
    for path in paths:
        *layers, leaf = path.removeprefix(top).removesuffix(":0").split("/")
        layers = layers[1:] or layers
        known = name_of(layers[-1]) if name_of and layers else None
        names[path] = ".".join([*([known] if known else layers), LEAVES.get(leaf, leaf)])
    return names


def _torchvision_name(name):
    """Converts `conv3_block2_1_bn` to `layer2.1.bn1`; None for a layer without weights."""
    if match := re.fullmatch(r"conv(\d)_block(\d+)_([0-3])_(conv|bn)", name):
        block = f"layer{int(match[1]) - 1}.{int(match[2]) - 1}"
        if match[3] == "0":
            return f"{block}.downsample.{0 if match[4] == 'conv' else 1}"
        return f"{block}.{match[4]}{match[3]}"
    return {"conv1_conv": "conv1", "conv1_bn": "bn1", "predictions": "fc"}.get(name)


def _v2_name(name):
    """Converts `conv3_block2_1_bn`, which precedes the second convolution, to `layer2.1.bn2`."""
    if match := re.fullmatch(r"conv(\d)_block(\d+)_(?:([0-3])_(conv)|(preact|[12])_bn)", name):
        block = f"layer{int(match[1]) - 1}.{int(match[2]) - 1}"
        if match[4]:
            return f"{block}.conv{match[3]}" if match[3] != "0" else f"{block}.downsample.0"
        return f"{block}.bn{1 if match[5] == 'preact' else int(match[5]) + 1}"
    return {"conv1_conv": "conv1", "post_bn": "norm", "predictions": "fc"}.get(name)
