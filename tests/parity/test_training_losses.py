"""Losses compared with timm's, with smoothed and mixed labels."""

import numpy as np
import pytest
import timm.loss
import torch
from oracles import compared
from timm.data.mixup import mixup_target

from keras_resnet.data.augmentation import mixing
from keras_resnet.training import Recipe
from keras_resnet.training.distillation import divergence
from keras_resnet.training.losses import create_loss

pytestmark = pytest.mark.parity

BATCH, CLASSES = 8, 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [None, 0.2])
def test_binary_cross_entropy(smoothing, threshold):
    rng = np.random.default_rng(0)
    logits = 5 * rng.normal(size=(BATCH, CLASSES)).astype(np.float32)
    labels = rng.integers(0, CLASSES, BATCH)
    loss = create_loss(Recipe(loss="binary_cross_entropy", target_threshold=threshold))
    theirs = timm.loss.BinaryCrossEntropy(smoothing, threshold)
    smooth = mixing.smooth_labels(labels, CLASSES, smoothing)
    expected = theirs(torch.tensor(logits), torch.tensor(labels)).item()
    differences = [abs(float(loss(smooth, logits)) / expected - 1)]

    # Two classes per image, as with MixUp: timm mixes the first row with the last.
    last = np.arange(BATCH)[::-1].copy()
    (mixed,) = mixing.mix_labels(smooth, last, np.full(BATCH, 0.7, np.float32))
    targets = mixup_target(torch.tensor(labels), CLASSES, 0.7, smoothing)
    np.testing.assert_allclose(mixed, targets, atol=1e-7)
    expected = theirs(torch.tensor(logits), targets).item()
    differences.append(abs(float(loss(mixed, logits)) / expected - 1))
    field = '`loss="binary_cross_entropy"`'
    compared(field, "`timm.loss.BinaryCrossEntropy`", max(differences), 1e-6)


def test_distillation():
    rng = np.random.default_rng(0)
    ours, theirs = 3 * rng.normal(size=(2, BATCH, CLASSES)).astype(np.float32)
    differences = []
    for temperature in (1.0, 4.0):
        expected = temperature**2 * torch.nn.functional.kl_div(
            torch.log_softmax(torch.tensor(ours) / temperature, -1),
            torch.softmax(torch.tensor(theirs) / temperature, -1),
            reduction="batchmean",
        )
        found = float(divergence(ours, theirs, temperature))
        differences.append(abs(found / expected.item() - 1))
    compared("`teacher`", "`torch.nn.functional.kl_div`", max(differences), 1e-5)
