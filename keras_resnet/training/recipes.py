"""The named recipes; each is a row."""

from typing import Any

from keras_resnet.data import Augmentation
from keras_resnet.fields import row_of
from keras_resnet.training.recipe import Recipe

# ResNet strikes back, https://arxiv.org/abs/2110.00476, table 2. What the table does not say is as
# in timm: gradient clipping in LAMB, bicubic interpolation.
A1 = Recipe(
    model="resnet50",
    data="imagenet2012",
    image_size=224,
    resize=235,  # the crop is 0.95 of it
    interpolation="bicubic",
    drop_path=0.05,
    augmentation=Augmentation(
        policy="rand-m7-mstd0.5-inc1", mixup=0.2, cutmix=1.0, label_smoothing=0.1, repeats=3
    ),
    epochs=600,
    batch_size=2048,
    loss="binary_cross_entropy",
    optimizer="lamb",
    learning_rate=5e-3,
    schedule="cosine",
    warmup_epochs=5,
    weight_decay=0.01,
    clip_norm=1.0,
    precision=None,
)
# target_threshold as in timm's commands for A2; with A1, it would undo the label smoothing.
A2 = A1.changed(
    {
        "epochs": 300,
        "weight_decay": 0.02,
        "target_threshold": 0.2,
        "augmentation.mixup": 0.1,
        "augmentation.label_smoothing": 0.0,
    }
)
A3 = A2.changed(
    {
        "epochs": 100,
        "train_size": 160,
        "learning_rate": 8e-3,
        "drop_path": 0.0,
        "augmentation.policy": "rand-m6-mstd0.5-inc1",
        "augmentation.repeats": 1,
    }
)

RECIPES = {
    # ResNet-34 on a folder of flowers, as in PyTorch tutorials.
    "flowers": Recipe(),
    # First the head, then the last two stages with a low learning rate.
    "fine_tune": Recipe(
        model="resnet18",
        weights="imagenet",
        augmentation=Augmentation(crop_scale=(0.35, 1.0)),
        head_epochs=5,
        head_learning_rate=1e-3,
        epochs=10,
        freeze_until="layer2",
        optimizer="adamw",
        learning_rate=1e-4,
        learning_rate_multipliers={"layer3": 0.3},
        schedule="cosine",
        warmup_epochs=1,
        weight_decay=1e-4,
        early_stopping=5,
    ),
    # All layers, with lower learning rates towards the input.
    "fine_tune_layers": Recipe(
        model="resnet50",
        weights="imagenet",
        drop_path=0.1,
        augmentation=Augmentation(
            crop_scale=(0.35, 1.0), policy="trivial_augment_wide", label_smoothing=0.1
        ),
        epochs=20,
        batch_size=32,
        optimizer="adamw",
        learning_rate=5e-4,
        layer_decay=0.75,
        schedule="cosine",
        warmup_epochs=2,
        weight_decay=0.05,
    ),
    # He et al., https://arxiv.org/abs/1512.03385, section 4.2, with the usual 200 epochs.
    "cifar": Recipe(
        model="resnet20",
        data="cifar10",
        image_size=32,
        resize=32,
        augmentation=Augmentation(padding=4),
        epochs=200,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        reference_batch_size=128,
        schedule="step",
        milestones=(100, 150),
        weight_decay=1e-4,
        decay_all=True,
    ),
    # torchvision's references/classification for IMAGENET1K_V1.
    "imagenet_v1": Recipe(
        model="resnet50",
        data="imagenet2012",
        epochs=90,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.1,
        reference_batch_size=256,
        schedule="step",
        milestones=(30, 60),
        weight_decay=1e-4,
        decay_all=True,
        precision=None,
    ),
    # torchvision's references/classification for IMAGENET1K_V2.
    "imagenet_v2": Recipe(
        model="resnet50",
        data="imagenet2012",
        image_size=224,
        resize=232,
        train_size=176,
        augmentation=Augmentation(
            policy="trivial_augment_wide",
            erasing=0.1,
            mixup=0.2,
            cutmix=1.0,
            label_smoothing=0.1,
            repeats=4,
        ),
        epochs=600,
        batch_size=1024,
        optimizer="sgd",
        learning_rate=0.5,
        reference_batch_size=1024,
        schedule="cosine",
        warmup_epochs=5,
        weight_decay=2e-5,
        # There: every 32 steps, with 1 - (1 - 0.99998) * 1024 * 32 / 600.
        ema_momentum=0.999966,
        precision=None,
    ),
    "a1": A1,
    "a2": A2,
    "a3": A3,
}


def named_recipe(name: str, **changes: Any) -> Recipe:
    """Returns a named recipe, with some of its fields changed.

    Args:
        name: "flowers", "fine_tune", "fine_tune_layers", "cifar", "imagenet_v1", "imagenet_v2",
            "a1", "a2" or "a3".
        **changes: Fields of `Recipe`.

    Raises:
        ValueError: if there is no such recipe, or a field is unknown or invalid.

    Example:
    >>> keras_resnet.training.named_recipe("imagenet_v1", epochs=100).schedule
    'step'
    """
    return row_of(RECIPES, name, "recipe").changed(changes)
