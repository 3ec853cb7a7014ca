"""Which recipes are refused: values that cannot be meant, and pairs that contradict each other."""

import itertools

from keras_resnet.configs import CONFIGS
from keras_resnet.data import Augmentation

OPTIMIZERS = ("sgd", "sgdw", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def check(recipe):
    """Checks a `Recipe`.

    Raises:
        ValueError: says what came, what was expected, and what does not go together.
    """
    _check_kinds(recipe)
    _check_numbers(recipe)
    _check_names(recipe)
    _check_pairs(recipe)


def _check_kinds(recipe):
    kinds = {
        bool: ("zero_init_residual", "exif", "nesterov", "decay_all")
        + ("jit_compile", "deterministic"),
        Augmentation: ("augmentation",),
        tuple: ("milestones",),
        dict: ("learning_rate_multipliers",),
        str: ("data", "weights", "freeze_until", "model", "optimizer", "schedule", "precision"),
    }
    for kind, names in kinds.items():
        for name in names:
            value = getattr(recipe, name)
            optional = value is None and name in ("data", "weights", "freeze_until")
            if not optional and not isinstance(value, kind):
                raise ValueError(f"{name} should be a {kind.__name__}. Received: {name}={value!r}")
    if not all(type(epoch) is int for epoch in recipe.milestones):
        raise ValueError(f"milestones are epochs. Received: milestones={recipe.milestones!r}")


def _check_numbers(recipe):
    def refuse(name, expected):
        raise ValueError(f"{name} should be {expected}. Received: {name}={getattr(recipe, name)!r}")

    whole = ("batch_size", "accumulation_steps", "image_size")
    optional = ("train_size", "resize", "reference_batch_size", "early_stopping")
    for name in (*whole, *optional, "epochs", "head_epochs", "seed"):
        value = getattr(recipe, name)
        if name in optional and value is None:
            continue
        least = 0 if name in ("epochs", "head_epochs", "seed") else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            refuse(name, f"a whole number, {least} or more")
    positive = ("learning_rate", "head_learning_rate", "clip_norm")
    least = ("weight_decay", "warmup_epochs")
    shares = ("momentum", "dropout", "drop_path", "ema_momentum", "validation_split")
    for name in (*positive, *least, *shares, "max_bad"):
        value = getattr(recipe, name)
        if value is None and name in ("clip_norm", "ema_momentum", "validation_split"):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            refuse(name, "a number")
        if name in positive and not 0 < value < float("inf"):
            refuse(name, "more than 0")
        if name in least and not 0 <= value < float("inf"):
            refuse(name, "0 or more")
        if name in shares and not 0 <= value < 1:
            refuse(name, "a share, 0 or more and less than 1")
        if name == "max_bad" and not 0 <= value <= 1:
            refuse(name, "a share, 0 to 1")


def _check_names(recipe):
    for name, choices in (
        ("model", tuple(CONFIGS)),
        ("optimizer", OPTIMIZERS),
        ("schedule", SCHEDULES),
        ("precision", PRECISIONS),
    ):
        if getattr(recipe, name) not in choices:
            raise ValueError(
                f"{name} should be one of {', '.join(choices)}. "
                f"Received: {name}={getattr(recipe, name)!r}"
            )
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
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor < 0:
            raise ValueError(
                "A factor of learning_rate_multipliers should be a number, 0 or more. "
                f"Received: learning_rate_multipliers[{name!r}]={factor!r}"
            )
        yield name


def _check_pairs(recipe):
    def contradiction(what, *names):
        received = ", ".join(f"{name}={getattr(recipe, name)!r}" for name in names)
        raise ValueError(f"{what} Received: {received}")

    if recipe.image_size > (recipe.resize or recipe.image_size):
        contradiction(
            "The crop is larger than what it is cut from: image_size should be at most resize.",
            *("image_size", "resize"),
        )
    unresized = recipe.augmentation.crop_scale is None and recipe.augmentation.padding is None
    if unresized and recipe.training_preprocessing.crop > recipe.preprocessing.resize:
        contradiction(
            "The crop of training is larger than what it is cut from.", "train_size", "resize"
        )
    config = CONFIGS[recipe.model]
    least = config.family.min_size
    for name in ("image_size", "train_size"):
        if (getattr(recipe, name) or least) < least:
            contradiction(f"{name} should be {least} or more for {recipe.model}.", name)
    if not recipe.epochs and not recipe.head_epochs:
        contradiction("There is nothing to train.", "epochs", "head_epochs")
    if recipe.warmup_epochs and recipe.warmup_epochs >= recipe.epochs:
        contradiction("The warm-up is as long as training.", "warmup_epochs", "epochs")
    if (recipe.schedule == "step") != bool(recipe.milestones):
        contradiction(
            "milestones are the epochs at which schedule='step' divides the learning rate.",
            *("schedule", "milestones"),
        )
    edges = (0, *recipe.milestones, recipe.epochs)
    if recipe.milestones and any(a >= b for a, b in itertools.pairwise(edges)):
        contradiction("milestones should ascend, between 0 and epochs.", "milestones", "epochs")
    if recipe.nesterov and not (recipe.optimizer.startswith("sgd") and recipe.momentum):
        contradiction("nesterov is for SGD with momentum.", "nesterov", "optimizer", "momentum")
    if recipe.weights is None and (recipe.freeze_until or recipe.head_epochs):
        names = ("weights", "freeze_until", "head_epochs")
        contradiction(
            "Only trained weights are worth freezing. Pass weights: a file, or 'imagenet' for "
            "the published ones, which are downloaded.",
            *names,
        )


def _layer_names(config):
    """The names of all layers, blocks and stages."""
    yield from ("conv1", "bn1", "fc")
    for stage, depth in enumerate(config.depths, 1):
        yield f"layer{stage}"
        yield from (f"layer{stage}.{index}" for index in range(depth))
