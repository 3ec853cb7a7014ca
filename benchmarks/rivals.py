"""Compares the networks and logits of other libraries, for docs/comparison.md.

    python benchmarks/rivals.py

Needs the parity and export extras and KerasHub: `pip install keras-hub safetensors`. Nothing is
downloaded: all weights are random, including those of batch normalization. Numbers are the largest
difference from torchvision's logits (for dilated networks, timm's features), divided by the largest
value, at 224x224 and 193x257. Error messages of the libraries are printed to stderr.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision

import keras  # isort: skip (torch comes first)
import keras_hub

import keras_resnet
from keras_resnet import conversion

NAMES = ("resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2")
RNG = np.random.default_rng(0)
IMAGES = [RNG.normal(size=(1, *size, 3)).astype(np.float32) for size in ((224, 224), (193, 257))]


def ours(file, **options):
    """Returns the network of this package, with the weights of a file."""
    make = keras_resnet.create
    return make(file.parent.name, weights=file, classifier_activation=None, **options)


def applications(file, version=None, **options):
    """Returns the network of keras.applications, which with a top supports a single image size."""
    make = getattr(keras.applications, file.parent.name.split("_")[0].replace("resne", "ResNe"))
    options |= {"weights": file.with_suffix(".weights.h5"), "classifier_activation": None}
    return lambda images: make(input_shape=images.shape[1:], **options)(images)


def hub(file, output_stride=None, include_top=True):
    """Returns the network of KerasHub, which has no dilation."""
    models = keras_hub.models
    make = models.ResNetImageClassifier if include_top else models.ResNetBackbone
    strides = {"stackwise_num_strides": [1, 2, output_stride // 8, 1]} if output_stride else {}
    return make.from_preset(str(file.parent), **strides)


def timms(file, include_top=True, make=timm.create_model, **options):
    """Returns the network of timm, or of another function for PyTorch."""
    network = make(file.parent.name, **options).eval()
    network.load_state_dict(torch.load(file.with_suffix(".pth")))
    return network if include_top else torch.nn.Sequential(*list(network.children())[:-2])


def torchvisions(file, include_top=True, output_stride=None, version=None):
    """Returns the network of torchvision; for "v1", strides are moved to the first 1x1."""
    dilation = output_stride and [False, output_stride == 8, True]
    make = torchvision.models.get_model
    network = timms(file, include_top, make, replace_stride_with_dilation=dilation)
    for name, module in network.named_modules() if version else ():
        if name in ("layer2.0", "layer3.0", "layer4.0"):
            module.conv1.stride, module.conv2.stride = (2, 2), (1, 1)
    return network


MAKERS = {"keras_resnet": ours, "keras.applications": applications, "KerasHub": hub}
MAKERS |= {"timm": timms, "torchvision": torchvisions}


def answers(network):
    """Returns a network's outputs for the images, channels last."""
    if not isinstance(network, torch.nn.Module):
        return [np.asarray(network(images)) for images in IMAGES]
    found = [network(torch.from_numpy(images.transpose(0, 3, 1, 2))) for images in IMAGES]
    return [np.moveaxis(array.numpy(), 1, -1) for array in found]


def row(file, reference=torchvisions, **options):
    """Prints the error of each library's network; "no" if it is not supported."""
    expected = answers(reference(file, **options))
    cells = [" ".join([file.parent.name, *(f"{key} {value}" for key, value in options.items())])]
    for library, make in MAKERS.items():
        try:
            pairs = zip(answers(make(file, **options)), expected, strict=True)
            cells.append(f"{max(abs(a - b).max() / abs(b).max() for a, b in pairs):.0e}")
        except Exception as refusal:
            print(f"{cells[0]}, {library}: {refusal!r:.150}", file=sys.stderr)
            cells.append("no")
    print("|", " | ".join(cells), "|", flush=True)


def prepare(file):
    """Saves a random network in a folder with timm's layout."""
    name = file.parent.name
    file.parent.mkdir()
    file.with_name("config.json").write_text(f'{{"architecture": "{name}", "num_classes": 1000}}')
    network = keras_resnet.create(name)
    if name == "resnet50":
        network = keras.applications.ResNet50(weights=None)
    for variable in network.weights:
        if len(variable.shape) == 1:
            variable.assign(RNG.uniform(0.5, 1.5, variable.shape))
    network.save_weights(file.with_suffix(".weights.h5"))
    for suffix in (".safetensors", ".pth"):
        target = file.with_suffix(suffix)
        conversion.convert(file.with_suffix(".weights.h5"), target, model=name, version="v1")


def main():
    """Prints the table."""
    torch.set_grad_enabled(False)
    print("|", " | ".join(["", *MAKERS]), "|")
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder, name, "model.safetensors") for name in (*NAMES, "resnet20")}
        for file in files.values():
            prepare(file)
            row(file, torchvisions if file.parent.name in NAMES else ours)
        row(files["resnet50"], version="v1")
        for name, stride in itertools.product(("resnet18", "resnet50"), (8, 16)):
            row(files[name], timms, include_top=False, output_stride=stride)


if __name__ == "__main__":
    main()
