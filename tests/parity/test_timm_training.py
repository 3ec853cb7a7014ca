"""Training compared with timm: ten steps of a recipe's parts, from the same weights and draws."""

import dataclasses

import keras
import numpy as np
import pytest
import timm.loss
import timm.optim
import torch
from comparison import relative_error
from oracles import compared
from timm.data.mixup import Mixup, cutmix_bbox_and_lam
from timm.models.resnet import BasicBlock, ResNet

from keras_resnet import configs, models, weights
from keras_resnet.training import RECIPES, Recipe
from keras_resnet.training.feed import FedNetwork
from keras_resnet.training.losses import create_loss
from keras_resnet.training.optimizers import create_optimizer
from keras_resnet.training.weight_averaging import WeightAveraging, recompute_statistics
from keras_resnet.weights.assigning import assign

pytestmark = pytest.mark.parity

STEPS, BATCH, SIDE, CLASSES = 10, 16, 64, 5


WIDTHS = (64, 16, 24, 32)  # timm's stem has 64 channels


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """The same new network in this package and in timm."""
    family = dataclasses.replace(configs.IMAGENET, widths=WIDTHS)
    row = configs.ResNetConfig("basic", (1, 1, 1, 1), family=family)
    monkeypatch.setitem(configs.CONFIGS, "resnet18", row)
    torch.manual_seed(0)
    theirs = ResNet(BasicBlock, [1] * 4, CLASSES, channels=WIDTHS)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = models.create("resnet18", classes=CLASSES, classifier_activation=None)
    weights.load(ours, tmp_path / "w.pth")
    return ours, theirs.train()


def batches():
    rng = np.random.default_rng(0)
    shape = (BATCH, SIDE, SIDE, 3)
    return [
        (rng.integers(0, 256, shape, np.uint8), rng.integers(0, CLASSES, BATCH))
        for _ in range(STEPS)
    ]


def drawn(mixup):
    """Returns timm's draws in the format of `mixing.draw`, and the share of the labels."""
    share, cuts = mixup._params_per_batch()
    label_share, box = share, (0, 0, 0, 0)
    if cuts:
        (top, bottom, left, right), label_share = cutmix_bbox_and_lam((3, SIDE, SIDE), share)
        share, box = 1.0, (top, left, bottom, right)
    columns = (np.float32([share] * BATCH), np.float32([box] * BATCH))
    return *columns, np.float32([label_share] * BATCH)


@pytest.mark.parametrize("name", ["a1", "a2", "a3"])
def test_ten_steps(name, networks):
    """Normalising, MixUp or CutMix, smoothing, the loss, clipping and LAMB with its decay."""
    ours, theirs = networks
    recipe = RECIPES[name].changed({"model": "resnet18", "batch_size": BATCH})
    augmentation, preprocessing = recipe.augmentation, recipe.preprocessing
    fed = FedNetwork(ours, augmentation, preprocessing)
    fed.compile(create_optimizer(recipe, recipe.learning_rate), create_loss(recipe))
    smoothing = augmentation.label_smoothing
    mixup = Mixup(
        augmentation.mixup, augmentation.cutmix, label_smoothing=smoothing, num_classes=CLASSES
    )
    criterion = timm.loss.BinaryCrossEntropy(target_threshold=recipe.target_threshold)
    optimizer = timm.optim.create_optimizer_v2(
        theirs, "lamb", lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    partners = np.arange(BATCH, dtype=np.int32)[::-1].copy()
    losses, expected, kinds = [], [], []
    for step, (pixels, labels) in enumerate(batches()):
        np.random.seed(step)
        shares, boxes, label_shares = drawn(mixup)
        kinds.append(bool(boxes.any()))
        batch = {"pixels": pixels, "partners": partners, "shares": shares, "boxes": boxes}
        smooth = np.eye(CLASSES, dtype=np.float32)[labels] * (1 - smoothing) + smoothing / CLASSES
        mixed = smooth * label_shares[:, None] + smooth[partners] * (1 - label_shares[:, None])
        fed.reset_metrics()
        losses.append(float(fed.train_on_batch(batch, mixed)))

        images = torch.tensor(preprocessing.normalise(pixels).numpy().transpose(0, 3, 1, 2))
        np.random.seed(step)
        images, targets = mixup(images, torch.tensor(labels))
        loss = criterion(theirs(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
        if step == STEPS // 2:  # later, rounding may switch a ReLU on or off, which LAMB magnifies
            state = weights.to_state_dict(ours)
            for key, value in theirs.state_dict().items():
                if "num_batches" not in key:
                    assert relative_error(state[key], value.numpy()) <= 1e-3, key
    assert len(set(kinds)) == 2
    difference = np.abs(np.divide(losses, expected) - 1).max()
    compared(f"recipe `{name}`, ten steps", "timm's LAMB, MixUp, CutMix and loss", difference, 1e-4)


def test_layer_decay(networks):
    """The learning rate of each weight is that of its group in timm."""
    ours, theirs = networks
    recipe = Recipe(model="resnet18", layer_decay=0.7, optimizer="sgd", momentum=0.0)
    optimizer = create_optimizer(recipe, 1.0)
    before = weights.to_state_dict(ours)
    optimizer.apply(
        [keras.ops.ones(v.shape) for v in ours.trainable_variables], ours.trainable_variables
    )
    after = weights.to_state_dict(ours)
    groups = timm.optim.param_groups_layer_decay(theirs, layer_decay=0.7)
    scales = {id(value): group["lr_scale"] for group in groups for value in group["params"]}
    differences = [
        np.abs((before[key] - after[key]) / scales[id(value)] - 1).max()
        for key, value in theirs.named_parameters()
    ]
    compared("`layer_decay`", "`timm.optim.param_groups_layer_decay`", max(differences), 1e-5)
    assert len({*scales.values()}) == 6  # the stem, four blocks, the classifier


def test_averaged_weights(networks):
    """The mean of the weights, and statistics of batches computed afterwards."""
    ours, theirs = networks
    rng = np.random.default_rng(0)
    averaged = torch.optim.swa_utils.AveragedModel(theirs)
    averaging = WeightAveraging(ours, first=1)
    averaging.set_model(ours)
    for epoch in range(4):
        state = {
            key: value + 0.1 * torch.tensor(rng.normal(size=value.shape), dtype=value.dtype)
            for key, value in theirs.state_dict().items()
            if "num_batches" not in key
        }
        theirs.load_state_dict(state, strict=False)
        assign(ours, {key: value.numpy() for key, value in state.items()}, "state")
        if epoch >= 1:
            averaged.update_parameters(theirs)
        averaging.on_epoch_end(epoch)
    for weight, average in zip(ours.weights, averaging.average, strict=True):
        weight.assign(average)
    batches = rng.normal(size=(3, BATCH, SIDE, SIDE, 3)).astype(np.float32)
    recompute_statistics(ours, batches)
    images = [torch.tensor(batch.transpose(0, 3, 1, 2)) for batch in batches]
    torch.optim.swa_utils.update_bn(images, averaged)
    state = weights.to_state_dict(ours)
    differences = [
        relative_error(state[key], value.numpy())
        for key, value in averaged.module.state_dict().items()
        if "num_batches" not in key
    ]
    compared("`swa_start`", "`torch.optim.swa_utils`", max(differences), 1e-4)
