"""What a training is: everything that decides its result."""

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping
from typing import Any

from keras_resnet.configs import CONFIGS
from keras_resnet.data import Augmentation
from keras_resnet.fields import (
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
    SHARE,
    Rule,
    a,
    check,
    documented,
    field,
    is_number,
    one_of,
    suggestion,
    whole,
)
from keras_resnet.preprocessing import CROP_MODE, INTERPOLATION, MEAN, STD, Preprocessing

# What a run adds to its recipe.json.
ADDED = ("classes", "command")
# What of the evaluation transform is the weights', if a recipe does not say it.
PIXELS = ("resize", "mean", "std", "interpolation", "crop_mode")


@documented
@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training's data, network and numbers.

    `Recipe()` with data is the flowers recipe: ResNet-34, Adam at 1e-4, 15 epochs of batches of 16.
    """

    data: str | None = field(
        None,
        a(str),
        "A folder with train/ and val/ of class folders or of shards; one folder of class "
        "folders; or the name of a data set of tensorflow-datasets.",
    )
    validation_split: float | None = field(
        None, RATE, "Share of the images that validate, 0 to 1, where they are not apart."
    )
    max_bad: float = field(
        0.1,
        SHARE,
        "Maximum fraction of unreadable images, 0 to 1, above which there is an error.",
    )
    model: str = field(
        "resnet34",
        Rule(lambda name: isinstance(name, str) and name in CONFIGS, "one of list_models()"),
        "The network: one of keras_resnet.list_models().",
    )
    weights: str | None = field(
        None,
        a(str),
        'What to start from: a file, a folder with a config.json, "hf://owner/name", "imagenet" or '
        "other published weights (downloads). None for random weights.",
    )
    dropout: float = field(0.0, RATE, "Rate of dropout before `fc`.")
    drop_path: float = field(0.0, RATE, "Rate of stochastic depth of the last block.")
    zero_init_residual: bool = field(False, a(bool), "Whether blocks start as their shortcuts.")
    image_size: int = field(
        224, whole(1), "Side of the images that validate, and are predicted later, in pixels."
    )
    train_size: int | None = field(
        None, whole(1), "Side of the images that train, in pixels. Default: `image_size`."
    )
    resize: int | None = field(
        None,
        whole(1),
        "Length of the shorter side before the centre crop of the evaluation transform. Default: "
        "as much of `image_size` as in the weights' transform, else 256 / 224.",
    )
    interpolation: str | None = field(
        None,
        INTERPOLATION,
        'How images are resized, "bilinear" or "bicubic", in training and validation. Default: '
        "the weights', else bilinear.",
    )
    crop_mode: str | None = field(
        None,
        CROP_MODE,
        'What the evaluation transform resizes, "center", "squash" or "border", as of '
        "`Preprocessing`. Default: the weights', else center.",
    )
    mean: tuple[float, float, float] | None = field(
        None,
        MEAN,
        "Mean of each RGB channel, of values scaled to 0..1. Default: the weights', else 0.5 of "
        "keras.applications' ResNetV2, ImageNet's of others.",
    )
    std: tuple[float, float, float] | None = field(
        None, STD, "Their standard deviation. Default: as the mean's."
    )
    exif: bool = field(
        False,
        a(bool),
        "True to turn JPEGs as their EXIF orientation says, in training, validation and the "
        "exported network; torchvision does not.",
    )
    augmentation: Augmentation = field(
        Augmentation,
        a(Augmentation),
        "What training does to images at random; MixUp, CutMix and label smoothing among it.",
    )
    epochs: int = field(15, whole(0), "Times through the images, after `head_epochs`.")
    batch_size: int = field(16, whole(1), "Images of a step, on all devices together.")
    optimizer: str = field(
        "adam",
        one_of("sgd", "sgdw", "adam", "adamw"),
        '"sgd" (with momentum), "adam"; with weight decay as torch.optim has it, added to the '
        'gradient. Or "sgdw", "adamw", which decay apart from the gradient '
        "(https://arxiv.org/abs/1711.05101).",
    )
    momentum: float = field(0.9, RATE, "SGD's.")
    nesterov: bool = field(False, a(bool), "Whether SGD's momentum is Nesterov's.")
    learning_rate: float = field(1e-4, POSITIVE, "The highest learning rate.")
    reference_batch_size: int | None = field(
        None,
        whole(1),
        "If given, the batch size that `learning_rate` is meant for: with another, it is "
        "multiplied by the quotient (https://arxiv.org/abs/1706.02677).",
    )
    schedule: str = field(
        "constant",
        one_of("constant", "step", "cosine"),
        '"constant"; "step", divided by 10 at each of `milestones`; or "cosine", falling to zero '
        "along a cosine (https://arxiv.org/abs/1608.03983).",
    )
    milestones: tuple[int, ...] = field(
        (),
        Rule(
            lambda epochs: isinstance(epochs, tuple) and all(type(n) is int for n in epochs),
            "a tuple of epochs",
        ),
        'Epochs, ascending, for "step".',
    )
    warmup_epochs: float = field(
        0, NOT_NEGATIVE, "How long the learning rate rises from a hundredth, linearly."
    )
    weight_decay: float = field(0.0, NOT_NEGATIVE, "Of the optimizer.")
    decay_all: bool = field(
        False, a(bool), "Whether norms and biases decay too, and not the kernels alone."
    )
    ema_momentum: float | None = field(
        None,
        RATE,
        "If given, the moving average of the weights is what is validated and saved; near 1, "
        "0.9999 for example. (The batch statistics are moving averages anyway.)",
    )
    clip_norm: float | None = field(
        None, POSITIVE, "If given, the gradient's largest norm, over all weights together."
    )
    accumulation_steps: int = field(
        1, whole(1), "Batches whose gradients are averaged for one update."
    )
    freeze_until: str | None = field(
        None,
        a(str),
        'The last layer or stage that stays as it is, with all before it, "layer2" for example; '
        "its batch statistics too.",
    )
    # Unhashable; recipes that are equal have equal hashes all the same.
    learning_rate_multipliers: dict[str, float] = field(
        dict,
        Rule(
            lambda factors: (
                isinstance(factors, dict)
                and all(is_number(factor) and factor >= 0 for factor in factors.values())
            ),
            "a dict of numbers, 0 or more",
        ),
        "{name of a layer, block or stage: factor of its learning rate}.",
        hash=False,
    )
    head_epochs: int = field(
        0,
        whole(0),
        "Epochs in which `fc` alone is trained, first, on features that are computed once, of "
        "images that are not augmented.",
    )
    head_learning_rate: float = field(1e-3, POSITIVE, "Adam's in these epochs.")
    early_stopping: int | None = field(
        None,
        whole(1),
        "If given, training ends after so many epochs with no better validation accuracy.",
    )
    precision: str | None = field(
        "float32",
        one_of("float32", "mixed_float16", "mixed_bfloat16"),
        '"float32", "mixed_float16" or "mixed_bfloat16". None for the last on a GPU that has it '
        "(compute capability 8.0 or more), else the first.",
    )
    jit_compile: bool | None = field(
        None,
        a(bool),
        "Whether XLA compiles the steps of training and validation. None for where it pays: on a "
        "GPU, if enough steps are planned.",
    )
    deterministic: bool = field(
        False,
        a(bool),
        "Whether TensorFlow takes only operations that give the same bits each time, on the same "
        "machine.",
    )
    seed: int = field(
        0, whole(0), "Random seed of the split, the order, the augmentation and the weights."
    )

    def __post_init__(self):
        """Refuses values that cannot be meant, and pairs of them that contradict each other."""
        check(self)
        _check_layers(self)
        _check_pairs(self)

    @property
    def preprocessing(self) -> Preprocessing:
        """The evaluation transform."""
        said = {name: getattr(self, name) for name in PIXELS if getattr(self, name) is not None}
        return Preprocessing.for_crop(self.image_size, exif=self.exif, **said)

    @property
    def training_preprocessing(self) -> Preprocessing:
        """The same for the size of training."""
        return dataclasses.replace(self.preprocessing, crop=self.train_size or self.image_size)

    @property
    def total_epochs(self):
        """Epochs of the head alone and of the network."""
        return self.head_epochs + self.epochs

    def to_json(self) -> str:
        """The recipe as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text) -> "Recipe":
        """Reads a recipe from JSON, a run folder's recipe.json too.

        Args:
            text: The text of a JSON object of arguments; those left out have their defaults.

        Raises:
            ValueError: if it is no such object.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"The recipe is no JSON: {error}.") from error
        return cls.from_config(values)

    @classmethod
    def from_config(cls, values) -> "Recipe":
        """Makes a recipe of a dictionary, that of a run folder's recipe.json too.

        Args:
            values: Arguments by name; those left out have their defaults.

        Raises:
            ValueError: if it is no such dictionary.
        """
        if not isinstance(values, dict):
            raise ValueError('A recipe is a JSON object: {"model": "resnet50", ...}.')
        values = {key: value for key, value in values.items() if key not in ADDED}
        return cls().changed(values)

    def resolved_as(self, other: "Recipe") -> "Recipe":
        """The recipe with what it leaves to the machine and the weights as another one has it."""
        left = ["precision", "jit_compile"]
        if self.image_size == other.image_size:
            left += PIXELS
        return self._filled({name: getattr(other, name) for name in left})

    def with_pixels_of(self, usual: Preprocessing) -> "Recipe":
        """The recipe with what it leaves to the weights as their preprocessing has it."""
        usual = usual.of_side(self.image_size)
        values = {name: getattr(usual, name) for name in PIXELS}
        if isinstance(usual.resize, tuple):  # the weights' images are no squares; these are
            values["resize"] = max(usual.resize)
        return self._filled(values)

    def _filled(self, values):
        left = {name: value for name, value in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **left)

    def located(self) -> "Recipe":
        """The recipe with paths that mean the same from any current folder."""
        paths = {"data": self.data, "weights": self.weights}
        here = {name: path for name, path in paths.items() if path and os.path.exists(path)}
        absolute: dict[str, Any] = {name: os.path.abspath(path) for name, path in here.items()}
        return dataclasses.replace(self, **absolute)

    def changed(self, changes: Mapping[str, Any]) -> "Recipe":
        """The recipe with other values.

        Args:
            changes: {name: value}; `augmentation.mixup` for a value of the augmentation. Lists, as
                JSON has them, become tuples. With another `image_size` and no `resize`, that
                becomes the default again; with other `weights`, all that is theirs by default.

        Raises:
            ValueError: if there is no such name, or a value will not do.
        """
        own: dict[str, Any] = {}
        augmentation: dict[str, Any] = {}
        for name, value in changes.items():
            if name == "augmentation" and isinstance(value, dict):
                augmentation |= value
            elif name.startswith("augmentation."):
                augmentation[name.removeprefix("augmentation.")] = value
            else:
                own[name] = value
        _check_fields(Recipe, own, "")
        _check_fields(Augmentation, augmentation, "augmentation.")
        if "image_size" in own:
            own = {"resize": None, **own}
        if "weights" in own:
            own = {**dict.fromkeys(PIXELS), **own}
        if augmentation:
            base = own.get("augmentation", self.augmentation)
            own["augmentation"] = dataclasses.replace(base, **_tuples(augmentation))
        return dataclasses.replace(self, **_tuples(own))


def _tuples(values):
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


def _check_fields(kind, values, prefix):
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise ValueError(f"A recipe has no {prefix}{name}. {suggestion(name, known, prefix)}")


def _check_layers(recipe):
    """Refuses names of layers that the network has not."""
    config = CONFIGS[recipe.model]
    names = {"conv1", "norm" if config.preactivation else "bn1", "fc"}
    names |= {"maxpool"} if config.stem_pool == "conv" else set()
    for stage, depth in enumerate(config.depths, 1):
        names |= {f"layer{stage}", *(f"layer{stage}.{index}" for index in range(depth))}
    named = {
        f"learning_rate_multipliers[{name!r}]": name for name in recipe.learning_rate_multipliers
    }
    if recipe.freeze_until is not None:
        named["freeze_until"] = recipe.freeze_until
    for argument, name in named.items():
        if name not in names:
            raise ValueError(
                f"{argument} should name a layer, block or stage of {recipe.model}: conv1, "
                f"layer1, layer1.0, ..., fc. Received: {name!r}"
            )


def _check_pairs(recipe):
    """Refuses values that contradict each other."""
    config, augmentation = CONFIGS[recipe.model], recipe.augmentation
    _refuse_if(
        recipe.image_size > (recipe.resize or recipe.image_size),
        "The crop is larger than what it is cut from: image_size should be at most resize.",
        image_size=recipe.image_size,
        resize=recipe.resize,
    )
    unresized = augmentation.crop_scale is None and augmentation.padding is None
    _refuse_if(
        unresized and recipe.training_preprocessing.crop > recipe.preprocessing.resize,
        "The crop of training is larger than what it is cut from.",
        train_size=recipe.train_size,
        resize=recipe.resize,
    )
    least = config.family.min_size
    said = f"The sides of images should be {least} or more for {recipe.model}."
    _refuse_if(recipe.image_size < least, said, image_size=recipe.image_size)
    _refuse_if((recipe.train_size or least) < least, said, train_size=recipe.train_size)
    _refuse_if(
        augmentation.mixes_images and recipe.batch_size < 2 * augmentation.repeats,
        "MixUp and CutMix need two images in a batch: batch_size should be at least twice "
        "augmentation.repeats.",
        batch_size=recipe.batch_size,
        augmentation=augmentation,
    )
    _refuse_if(
        not recipe.total_epochs,
        "There is nothing to train.",
        epochs=recipe.epochs,
        head_epochs=recipe.head_epochs,
    )
    _refuse_if(
        recipe.warmup_epochs and recipe.warmup_epochs >= recipe.epochs,
        "The warm-up is as long as training.",
        warmup_epochs=recipe.warmup_epochs,
        epochs=recipe.epochs,
    )
    _refuse_if(
        (recipe.schedule == "step") != bool(recipe.milestones),
        "milestones are the epochs at which schedule='step' divides the learning rate.",
        schedule=recipe.schedule,
        milestones=recipe.milestones,
    )
    edges = (0, *recipe.milestones, recipe.epochs)
    _refuse_if(
        recipe.milestones and any(low >= high for low, high in itertools.pairwise(edges)),
        "milestones should ascend, between 0 and epochs.",
        milestones=recipe.milestones,
        epochs=recipe.epochs,
    )
    _refuse_if(
        recipe.nesterov and not (recipe.optimizer.startswith("sgd") and recipe.momentum),
        "nesterov is for SGD with momentum.",
        nesterov=recipe.nesterov,
        optimizer=recipe.optimizer,
        momentum=recipe.momentum,
    )
    _refuse_if(
        recipe.weights is None and (recipe.freeze_until or recipe.head_epochs),
        "Only trained weights are worth freezing. Pass weights: a file, or 'imagenet' for the "
        "published ones, which are downloaded.",
        weights=recipe.weights,
        freeze_until=recipe.freeze_until,
        head_epochs=recipe.head_epochs,
    )
    _refuse_if(
        recipe.freeze_until == "fc",
        f"This leaves nothing to train: the last is 'layer{len(config.depths)}'.",
        freeze_until=recipe.freeze_until,
    )


def _refuse_if(wrong, said, **received):
    if wrong:
        came = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise ValueError(f"{said} Received: {came}")
