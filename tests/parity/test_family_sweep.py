"""timm's networks compared with timm: one of each kind here, all of them in the sweep.

The sweep writes docs/family.csv, whose errors are shown in docs/models.md:

    pytest tests/parity/test_family_sweep.py -m sweep -n 0
"""

import csv
import dataclasses
import itertools
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

import keras_resnet  # isort: skip (torch comes first)
from randomised import randomise

from keras_resnet.configs import CONFIGS, IMAGENET

TABLE = Path(__file__).parents[2] / "docs" / "family.csv"
ROWS = [name for name, row in CONFIGS.items() if row.family is IMAGENET and timm.is_model(name)]
# Other networks of timm, and why they are not supported.
OTHERS = {
    "resnet50_gn": "has group normalization",
    "ecaresnet50d_pruned": "has pruned channels",
    "resnetv2_50d_evos": "has EvoNorm",
    "resnetv2_50x1_bit": "has group normalization and standardizes its kernels",
    "test_resnet": "mixes kinds of blocks",
    "resnest50d": "has split attention",
    "resnet61q": "has SiLU, and a different stem",
}
SIDES = ((96, 96), (64, 128))


def compared(row, theirs, folder, dtype="float32", **options):
    """Returns the largest error, relative to the largest logit, and both parameter counts."""
    randomise(theirs)
    safetensors.torch.save_file(theirs.state_dict(), folder / "w.safetensors")
    theirs.to(getattr(torch, dtype))
    options |= {"classes": 7, "classifier_activation": None, "dtype": dtype}
    ours = keras_resnet.create(row, True, folder / "w.safetensors", **options)
    errors = []
    for height, width in SIDES:
        x = np.random.default_rng(0).normal(size=(1, 3, height, width)).astype("float32")
        x = x.astype(dtype)  # values that both dtypes represent: inputs of Keras are float32
        with torch.no_grad():
            expected = theirs(torch.from_numpy(x)).numpy()
        found = ours.predict_on_batch(x.transpose(0, 2, 3, 1))
        errors.append(float(np.abs(found - expected).max() / np.abs(expected).max()))
    counts = (
        sum(int(np.prod(weight.shape)) for weight in ours.trainable_weights),
        sum(weight.numel() for weight in theirs.parameters()),
    )
    return max(errors), counts


@pytest.mark.parity
@pytest.mark.parametrize(
    "name, options",
    [
        ("resnet10t", {}),
        ("resnetblur18", {"output_stride": 8}),
        ("resnetaa34d", {"output_stride": 16}),
        ("ecaresnet26t", {"output_stride": 16}),
        ("seresnext26d_32x4d", {}),
        ("resnetrs50", {}),
    ],
)
def test_kinds(name, options, tmp_path):
    theirs = timm.create_model(name, num_classes=7, **options)
    error, (ours, expected) = compared(name, theirs, tmp_path, **options)
    assert error <= 1e-5
    assert ours == expected


@pytest.mark.parity
def test_a_senet(tmp_path):
    """senet154 with fewer blocks: narrower first convolutions, and 3x3 shortcuts."""
    theirs = timm.models.resnet.ResNet(
        *(timm.models.resnet.Bottleneck, (1, 1, 1, 1), 7),
        **{"cardinality": 64, "base_width": 4, "stem_type": "deep", "block_reduce_first": 2},
        **{"down_kernel_size": 3, "block_args": {"attn_layer": "se"}, "output_stride": 16},
    )
    row = dataclasses.replace(CONFIGS["senet154"], depths=(1, 1, 1, 1))
    error, (ours, expected) = compared(row, theirs, tmp_path, output_stride=16)
    assert error <= 1e-5
    assert ours == expected


@pytest.mark.parity
@pytest.mark.parametrize("name", OTHERS)
def test_errors_name_the_unsupported_feature(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    ours = keras_resnet.create("resnet50d", classes=7)
    keras_resnet.weights.save(ours, tmp_path / "w.pth")
    with pytest.raises(keras_resnet.weights.CheckpointError, match=OTHERS[name]):
        keras_resnet.weights.load(ours, tmp_path / "w.pth")


def row_of(name, folder):
    """Returns the row of a network in the table.

    If gates depend on gates of a hundred layers, with random statistics timm's own logits in
    float32 differ by 8 % from those in float64: such networks are compared in float64.
    """
    for dtype in ("float32", "float64"):
        theirs = timm.create_model(name, num_classes=7)
        error, (ours, expected) = compared(name, theirs, folder, dtype)
        assert ours == expected, name
        if error <= 1e-5:
            break
    return name, ours, f"{error:.1e}", dtype


@pytest.mark.sweep
def test_sweep(tmp_path):
    """Each row is computed in its own process, since all together would need over 20 GB."""
    rows = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        for row in pool.map(row_of, ROWS, itertools.repeat(tmp_path)):
            rows.append(row)
            print(*row, flush=True)
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("name", "parameters", "error", "precision"))
        writer.writerows(rows)
    assert not [row for row in rows if float(row[2]) > 1e-5]
