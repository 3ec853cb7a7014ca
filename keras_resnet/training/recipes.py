"""The named recipes; each is a row."""

from typing import Any

from keras_resnet.data import Augmentation
from keras_resnet.fields import row_of
from keras_resnet.training.recipe import Recipe

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
}


def named_recipe(name: str, **changes: Any) -> Recipe:
    """Returns a named recipe, with some of its fields changed.

    Args:
        name: "flowers", "fine_tune", "cifar", "imagenet_v1" or "imagenet_v2".
        **changes: Fields of `Recipe`.

    Raises:
        ValueError: if there is no such recipe, or a field is unknown or invalid.

    Example:
    >>> keras_resnet.training.named_recipe("imagenet_v1", epochs=100).schedule
    'step'
    """
    return row_of(RECIPES, name, "recipe").changed(changes)
