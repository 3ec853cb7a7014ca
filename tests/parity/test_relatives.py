"""Networks that are nearly ours, as timm and transformers write them: equal, or refused with why.

The sweep through all of them has a marker of its own, and writes docs/relatives.csv:

    pytest tests/parity/test_relatives.py -m sweep -n 0
"""

import csv
import logging
import textwrap
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers

import keras_resnet  # isort: skip (torch comes first)
from randomised import randomise

from keras_resnet.conversion import named_network

TABLE = Path(__file__).parents[2] / "docs" / "relatives.csv"
# timm's modules of residual networks.
MODULES = (
    *("resnet", "resnetv2", "resnest", "res2net", "sknet", "senet", "tresnet", "cspnet", "nfnet"),
    *("byobnet", "regnet", "hrnet", "inception_resnet_v2", "rexnet", "selecsls", "byoanet"),
)
LARGEST = 90e6  # parameters of the networks of the sweep


def timm_file(name, folder):
    with torch.device("meta"):  # without numbers
        sizes = [p.numel() for p in timm.create_model(name, num_classes=7).parameters()]
    if sum(sizes) > LARGEST:
        return None, None
    theirs = randomise(timm.create_model(name, num_classes=7))
    timm.models.save_for_hf(theirs, folder, safe_serialization=True)
    return theirs, folder / "model.safetensors"


def transformers_file(options, folder):
    small = {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
    large = {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]}
    arguments = {**(large if options.get("layer_type") == "bottleneck" else small), **options}
    config = transformers.ResNetConfig(num_labels=7, **arguments)
    theirs = randomise(transformers.ResNetForImageClassification(config))
    theirs.save_pretrained(folder)
    return theirs, folder / "model.safetensors"


def outcome(theirs, path):
    """("equal", ""), ("refused", why), or ("silent", the difference)."""
    try:
        ours = named_network(path)
    except keras_resnet.weights.CheckpointError as error:
        return "refused", " ".join(str(error).replace(str(path), path.name).split())
    x = np.random.default_rng(0).normal(size=(1, 3, 96, 64)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(x))
    wanted = getattr(wanted, "logits", wanted).numpy()
    error = np.abs(ours(x.transpose(0, 2, 3, 1)) - wanted).max() / np.abs(wanted).max()
    return ("equal", "") if error <= 1e-5 else ("silent", f"{error:.2g}")


OPTIONS = [
    {"layer_type": kind, **more}
    for kind in ("basic", "bottleneck")
    for more in (
        {},
        {"downsample_in_bottleneck": True},
        {"downsample_in_first_stage": True},
        {"hidden_act": "gelu"},
        {"embedding_size": 32},
    )
]


@pytest.mark.parity
@pytest.mark.parametrize(
    "name, said",
    [
        ("resnetaa50", "is timm's resnetaa50, which averages where it strides"),
        ("resnetblur18", "is timm's resnetblur18, which blurs where it strides"),
        ("resnet18d", "has a stem of several convolutions"),
        ("seresnet18", "has attention in its blocks"),
        ("resnet50_gn", "has group normalization"),
        ("resnetv2_18", "normalizes before its convolutions"),
    ],
)
def test_one_of_timm_of_a_kind(name, said, tmp_path):
    theirs, path = timm_file(name, tmp_path)
    what, why = outcome(theirs, path)
    assert what == "refused" and said in why


@pytest.mark.parity
@pytest.mark.parametrize(
    "name, said",
    [
        ("resnet50_gn", "group normalization (it has no running statistics)"),
        ("seresnet18", "with se in its blocks"),
        ("resnet18d", "with a stem that is not one convolution"),
        ("resnetblur18", None),
    ],
)
def test_what_keys_alone_tell(name, said, tmp_path, caplog):
    theirs, path = timm_file(name, tmp_path)
    (tmp_path / "config.json").unlink()
    if said is None:  # nothing does, which is said
        with caplog.at_level(logging.INFO, "keras_resnet"):
            keras_resnet.create(name.replace("blur", ""), weights=path, classes=7)
        assert "is taken for resnet18 as torchvision has it" in caplog.text
        return
    what, why = outcome(theirs, path)
    assert what == "refused" and said in why


@pytest.mark.parity
@pytest.mark.parametrize(
    "options, said",
    [
        ({"layer_type": "bottleneck", "downsample_in_bottleneck": True}, None),
        ({"layer_type": "basic", "downsample_in_first_stage": True}, "strides in its first stage"),
        ({"layer_type": "basic", "hidden_act": "gelu"}, "hidden_act='gelu', not ReLU"),
        ({"layer_type": "basic", "embedding_size": 32}, "resnet18"),
    ],
)
def test_options_of_transformers(options, said, tmp_path):
    theirs, path = transformers_file(options, tmp_path)
    what, why = outcome(theirs, path)
    assert (what == "equal") if said is None else (what == "refused" and said in why)
    if said is None:
        with pytest.raises(keras_resnet.weights.CheckpointError, match="version='v1'"):
            keras_resnet.ResNet50(weights=path, classes=7)


@pytest.mark.sweep
def test_sweep(tmp_path, caplog):
    """Through all of them: none is silently another network."""
    rows = []
    names = [name for module in MODULES for name in timm.list_models(module=module)]
    for number, name in enumerate([*names, *OPTIONS]):
        folder = tmp_path / str(number)
        folder.mkdir()
        kind = "timm" if isinstance(name, str) else "transformers"
        make = timm_file if kind == "timm" else transformers_file
        theirs, path = make(name, folder)
        if path is None:
            continue
        what, why = outcome(theirs, path)
        (folder / "config.json").unlink()
        caplog.clear()
        with caplog.at_level(logging.INFO, "keras_resnet"):
            alone, why_alone = outcome(theirs, path)
        if alone == "silent" and "so it is taken for" in caplog.text:
            alone = "assumed, and said"
        path.unlink()
        shown = name if kind == "timm" else " ".join(f"{k}={v}" for k, v in name.items())
        rows.append(
            (kind, shown, what, alone, textwrap.shorten(why or why_alone, 240, placeholder=" ..."))
        )
        print(*rows[-1], sep="|", flush=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("library", "network", "with config.json", "without", "what is said"))
        writer.writerows(rows)
    assert len(rows) > 100
    assert not [row for row in rows if "silent" in row]
