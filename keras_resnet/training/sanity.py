"""Which recipes are refused: values that cannot be meant, and pairs that contradict each other."""

import itertools

from keras_resnet.configs import CONFIGS
from keras_resnet.data import Augmentation, rules
from keras_resnet.data.rules import is_number, is_whole

OPTIONAL = (  # None says something too
    *("data", "weights", "freeze_until", "train_size", "resize", "reference_batch_size"),
    *("early_stopping", "clip_norm", "ema_momentum", "validation_split"),
    *("precision", "jit_compile"),
)
KINDS = {
    bool: "zero_init_residual exif nesterov decay_all jit_compile deterministic",
    Augmentation: "augmentation",
    tuple: "milestones",
    dict: "learning_rate_multipliers",
    str: "data weights freeze_until model optimizer schedule precision",
}
CHOICES = {
    "model": tuple(CONFIGS),
    "optimizer": ("sgd", "sgdw", "adam", "adamw"),
    "schedule": ("constant", "step", "cosine"),
    "precision": ("float32", "mixed_float16", "mixed_bfloat16"),
}


def _is_a(kind):
    return lambda value: isinstance(value, kind)


RULES = (
    *((names, _is_a(kind), f"a {kind.__name__}") for kind, names in KINDS.items()),
    *(
        (name, choices.__contains__, f"one of {', '.join(choices)}")
        for name, choices in CHOICES.items()
    ),
    ("milestones", lambda epochs: all(type(epoch) is int for epoch in epochs), "epochs"),
    (
        "batch_size accumulation_steps image_size train_size resize reference_batch_size "
        "early_stopping",
        is_whole(1),
        "a whole number, 1 or more",
    ),
    ("epochs head_epochs seed", is_whole(0), "a whole number, 0 or more"),
    (
        "learning_rate head_learning_rate clip_norm weight_decay warmup_epochs momentum dropout "
        "drop_path ema_momentum validation_split max_bad",
        is_number,
        "a number",
    ),
    (
        "learning_rate head_learning_rate clip_norm",
        lambda value: 0 < value < float("inf"),
        "more than 0",
    ),
    ("weight_decay warmup_epochs", lambda value: 0 <= value < float("inf"), "0 or more"),
    (
        "momentum dropout drop_path ema_momentum validation_split",
        lambda share: 0 <= share < 1,
        "a share, 0 or more and less than 1",
    ),
    ("max_bad", lambda share: 0 <= share <= 1, "a share, 0 to 1"),
)


def check(recipe):
    """Checks a `Recipe`.

    Raises:
        ValueError: says what came, what was expected, and what does not go together.
    """
    rules.check(recipe, RULES, OPTIONAL)
    _check_layers(recipe)
    _check_pairs(recipe)


def _check_layers(recipe):
    names = set(_layer_names(CONFIGS[recipe.model]))
    frozen = {} if recipe.freeze_until is None else {"freeze_until": recipe.freeze_until}
    multiplied = {f"learning_rate_multipliers[{name!r}]": name for name in _multipliers(recipe)}
    for argument, name in {**frozen, **multiplied}.items():
        if name not in names:
            raise ValueError(
                f"{argument} should name a layer, block or stage of {recipe.model}: conv1, "
                f"layer1, layer1.0, ..., fc. Received: {name!r}"
            )
    if recipe.freeze_until == "fc":
        last = f"layer{len(CONFIGS[recipe.model].depths)}"
        raise ValueError(f"freeze_until='fc' leaves nothing to train. The last is {last!r}.")


def _multipliers(recipe):
    for name, factor in recipe.learning_rate_multipliers.items():
        if not is_number(factor) or factor < 0:
            raise ValueError(
                "A factor of learning_rate_multipliers should be a number, 0 or more. "
                f"Received: learning_rate_multipliers[{name!r}]={factor!r}"
            )
        yield name


def _check_pairs(recipe):
    for wrong, said, *names in _contradictions(recipe):
        if wrong:
            received = ", ".join(f"{name}={getattr(recipe, name)!r}" for name in names)
            raise ValueError(f"{said} Received: {received}")


def _contradictions(recipe):
    """(whether it is one, what is wrong, the arguments...), in the order of looking."""
    yield (
        recipe.image_size > (recipe.resize or recipe.image_size),
        "The crop is larger than what it is cut from: image_size should be at most resize.",
        *("image_size", "resize"),
    )
    unresized = recipe.augmentation.crop_scale is None and recipe.augmentation.padding is None
    yield (
        unresized and recipe.training_preprocessing.crop > recipe.preprocessing.resize,
        "The crop of training is larger than what it is cut from.",
        *("train_size", "resize"),
    )
    least = CONFIGS[recipe.model].family.min_size
    for name in ("image_size", "train_size"):
        yield (
            (getattr(recipe, name) or least) < least,
            f"{name} should be {least} or more for {recipe.model}.",
            name,
        )
    mixes = recipe.augmentation.mixup or recipe.augmentation.cutmix
    yield (
        mixes and recipe.batch_size < 2 * recipe.augmentation.repeats,
        "MixUp and CutMix need two images in a batch: batch_size should be at least twice "
        "augmentation.repeats.",
        *("batch_size", "augmentation"),
    )
    yield (
        not recipe.epochs and not recipe.head_epochs,
        "There is nothing to train.",
        *("epochs", "head_epochs"),
    )
    yield (
        recipe.warmup_epochs and recipe.warmup_epochs >= recipe.epochs,
        "The warm-up is as long as training.",
        *("warmup_epochs", "epochs"),
    )
    yield (
        (recipe.schedule == "step") != bool(recipe.milestones),
        "milestones are the epochs at which schedule='step' divides the learning rate.",
        *("schedule", "milestones"),
    )
    edges = (0, *recipe.milestones, recipe.epochs)
    yield (
        recipe.milestones and any(a >= b for a, b in itertools.pairwise(edges)),
        "milestones should ascend, between 0 and epochs.",
        *("milestones", "epochs"),
    )
    yield (
        recipe.nesterov and not (recipe.optimizer.startswith("sgd") and recipe.momentum),
        "nesterov is for SGD with momentum.",
        *("nesterov", "optimizer", "momentum"),
    )
    yield (
        recipe.weights is None and (recipe.freeze_until or recipe.head_epochs),
        "Only trained weights are worth freezing. Pass weights: a file, or 'imagenet' for the "
        "published ones, which are downloaded.",
        *("weights", "freeze_until", "head_epochs"),
    )


def _layer_names(config):
    """The names of all layers, blocks and stages."""
    yield from ("conv1", "bn1", "fc")
    for stage, depth in enumerate(config.depths, 1):
        yield f"layer{stage}"
        yield from (f"layer{stage}.{index}" for index in range(depth))
