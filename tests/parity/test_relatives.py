"""Variants of timm and transformers: either equal, or rejected with a reason.

The sweep through all of them has its own marker, and writes docs/relatives.csv:

    pytest tests/parity/test_relatives.py -m sweep -n 0
"""

import csv
import json
import logging
import textwrap
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers

import keras_resnet  # isort: skip (torch comes first)
from randomised import randomise

from keras_resnet.configs import CONFIGS
from keras_resnet.conversion import named_network

TABLE = Path(__file__).parents[2] / "docs" / "relatives.csv"
# Modules of timm with residual networks.
MODULES = (
    *("resnet", "resnetv2", "resnest", "res2net", "sknet", "senet", "tresnet", "cspnet", "nfnet"),
    *("byobnet", "regnet", "hrnet", "inception_resnet_v2", "rexnet", "selecsls", "byoanet"),
)
LARGEST = 90e6  # maximum number of parameters in the sweep


def timm_file(name, folder):
    with torch.device("meta"):  # without allocating values
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
    """Returns ("equal", ""), ("refused", reason), or ("silent", difference)."""
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
        ("resnetblur18", None),
        ("skresnet18", "is timm's skresnet18, which has selective kernels"),
        ("resnet50_gn", "has group normalization"),
    ],
)
def test_one_timm_network_of_each_kind(name, said, tmp_path):
    theirs, path = timm_file(name, tmp_path)
    what, why = outcome(theirs, path)
    assert (what == "equal") if said is None else (what == "refused" and said in why)


@pytest.mark.parity
@pytest.mark.parametrize(
    "name, said",
    [
        ("resnet50_gn", "group normalization (it has no running statistics)"),
        ("skresnet18", "seems to contain an unknown network"),
        ("resnetblur18", None),
    ],
)
def test_without_config(name, said, tmp_path, caplog):
    theirs, path = timm_file(name, tmp_path)
    (tmp_path / "config.json").unlink()
    if said is None:  # keys do not tell, so the assumption is logged
        with caplog.at_level(logging.INFO, "keras_resnet"):
            keras_resnet.create(name.replace("blur", ""), weights=path, classes=7)
        assert "assuming resnet18 as in torchvision" in caplog.text
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


OPTIONS_OF_OPENMMLAB = """model = dict(
    type='FasterRCNN',
    backbone=dict(type='ResNet', depth=50, norm_eval=True, style='{}'),
    neck=dict(type='FPN'))
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
"""


@pytest.mark.parity
@pytest.mark.parametrize("key", ["config", "cfg"])
@pytest.mark.parametrize("style, version", [("pytorch", "v1.5"), ("caffe", "v1")])
def test_options_of_openmmlab(style, version, key, tmp_path):
    """Its checkpoints contain the config as text, with the strides of bottlenecks."""
    theirs = randomise(torchvision.models.resnet50()).eval()
    for stage in (theirs.layer2, theirs.layer3, theirs.layer4):
        if style == "caffe":
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    state = {f"backbone.{key}": v for key, v in theirs.state_dict().items() if "fc." not in key}
    path = tmp_path / "w.pth"
    torch.save({"meta": {key: OPTIONS_OF_OPENMMLAB.format(style)}, "state_dict": state}, path)
    found = keras_resnet.weights.inspect(path)
    assert "mean=[103.53, 116.28, 123.675]" in found.preprocessing
    assert "to_rgb=False" in found.preprocessing
    assert ("version='v1'" in found.call) == (version == "v1")
    options = {"include_top": False, "weights": path, "pooling": "avg"}
    with pytest.raises(keras_resnet.weights.CheckpointError, match=f"version='{version}'"):
        keras_resnet.ResNet50(version={"v1": "v1.5", "v1.5": "v1"}[version], **options)
    x = np.random.default_rng(0).normal(size=(1, 3, 96, 64)).astype(np.float32)
    with torch.no_grad():
        features = torch.nn.Sequential(*[*theirs.children()][:-1], torch.nn.Flatten())
        wanted = features(torch.from_numpy(x)).numpy()
    ours = keras_resnet.ResNet50(version=version, **options)
    assert np.abs(ours(x.transpose(0, 2, 3, 1)) - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parity
@pytest.mark.parametrize(
    "said, why",
    [
        ({"backbone": "resnet18", "use_timm_backbone": True}, None),
        ({"backbone": "resnetblur18"}, "blurs before downsampling"),
        ({"backbone": "someone/resnet-18"}, None),
        ({"backbone_config": {"model_type": "resnet", "hidden_act": "gelu"}}, "not ReLU"),
        ({}, None),
    ],
)
def test_the_backbone_of_another_model(said, why, tmp_path):
    """A detector of transformers, whose config.json describes its backbone."""
    theirs = randomise(torchvision.models.resnet18())
    prefix = "model.backbone.conv_encoder.model."
    state = {f"{prefix}{key}": v for key, v in theirs.state_dict().items() if "fc." not in key}
    torch.save(state, tmp_path / "pytorch_model.bin")
    config = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], **said}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = keras_resnet.ResNet18(include_top=False)
    if why:
        with pytest.raises(keras_resnet.weights.CheckpointError, match=why):
            keras_resnet.weights.load(model, tmp_path / "pytorch_model.bin")
        return
    keras_resnet.weights.load(model, tmp_path / "pytorch_model.bin")
    for key, value in keras_resnet.weights.to_state_dict(model).items():
        np.testing.assert_array_equal(value, theirs.state_dict()[key].numpy())


@pytest.mark.parity
def test_images_of_timm(tmp_path):
    _, path = timm_file("resnet18.a1_in1k", tmp_path)
    found = keras_resnet.weights.inspect(path)
    assert "timm's resnet18" in found.layout
    assert "interpolation='bicubic'" in found.preprocessing and "resize=235" in found.preprocessing


@pytest.mark.sweep
def test_sweep(tmp_path, caplog):
    """No variant is loaded silently as another network."""
    rows = []
    names = [name for module in MODULES for name in timm.list_models(module=module)]
    names = [name for name in names if name not in CONFIGS]  # see test_family_sweep.py for others
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
        if alone == "silent" and "assuming" in caplog.text:
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
