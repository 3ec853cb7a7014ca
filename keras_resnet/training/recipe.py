"""The recipe: all settings that determine the result of a training run."""

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping
from typing import Any

from keras_resnet.configs import CONFIGS
from keras_resnet.data import Augmentation
from keras_resnet.fields import (
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    RATE,
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
from keras_resnet.weights.description import MULTI_LABEL

# Keys that a run adds to its recipe.json.
ADDED = ("classes", "command", MULTI_LABEL)
# Fields of the evaluation transform that the weights determine if the recipe leaves them None.
PIXELS = ("resize", "mean", "std", "interpolation", "crop_mode")


@documented
@dataclasses.dataclass(frozen=True)
class Recipe:
    """Data, network and hyperparameters of a training run.

    The defaults are the flowers recipe: ResNet-34, Adam with learning rate 1e-4, 15 epochs, batch
    size 16.
    """

    data: str | None = field(
        None,
        a(str),
        "A folder with train/ and val/, each with class folders or shards, or with train.csv and "
        "val.csv; a single folder of class folders; a .csv or .parquet file with the columns file "
        "and label or labels; or the name of a tensorflow-datasets data set.",
    )
    validation_split: float | None = field(
        None,
        RATE,
        "Fraction of the images to set aside for validation, 0 to 1, if the data has no "
        "validation part.",
    )
    max_bad: float = field(
        0.1,
        FRACTION,
        "Maximum fraction of unreadable images, 0 to 1; training stops with an error above it.",
    )
    class_weights: str | dict[str, float] | None = field(
        None,
        Rule(
            lambda weights: (
                weights == "balanced"
                or (
                    isinstance(weights, dict)
                    and all(is_number(weight) and weight >= 0 for weight in weights.values())
                )
            ),
            '"balanced" or {class name: weight}, numbers of 0 or more',
        ),
        'Weights of the classes in the training loss: {"rose": 2.0} for example, 1 for others; or '
        '"balanced", inversely proportional to the number of training images. None for equal '
        "weights.",
        hash=False,
    )
    model: str = field(
        "resnet34",
        Rule(lambda name: isinstance(name, str) and name in CONFIGS, "one of list_models()"),
        "The network: one of keras_resnet.list_models().",
    )
    weights: str | None = field(
        None,
        a(str),
        'Initial weights: a file, a folder with a config.json, "hf://owner/name", "imagenet" or '
        "the name of other published weights (downloaded). None for random initialization.",
    )
    dropout: float = field(0.0, RATE, "Dropout rate before the classifier `fc`.")
    drop_path: float = field(
        0.0, RATE, "Stochastic depth rate of the last block; it grows linearly from the first."
    )
    zero_init_residual: bool = field(
        False,
        a(bool),
        "Whether to initialize the end of each residual branch with zeros, so that blocks start as "
        "their shortcuts.",
    )
    image_size: int = field(
        224, whole(1), "Image size for validation and prediction, height and width in pixels."
    )
    train_size: int | None = field(
        None,
        whole(1),
        "Image size for training, height and width in pixels. Default: `image_size`.",
    )
    train_sizes: tuple[int, ...] = field(
        (),
        Rule(
            lambda sizes: (
                isinstance(sizes, tuple) and all(type(size) is int and size > 0 for size in sizes)
            ),
            "a tuple of image sizes",
        ),
        "Image sizes for progressive resizing, instead of `train_size`, each for an equal part of "
        "`epochs`: (128, 176, 224) for example.",
    )
    resize: int | None = field(
        None,
        whole(1),
        "Length of the shorter side before the centre crop, for validation and prediction. "
        "Default: in the same ratio to `image_size` as for the weights, else 256 / 224.",
    )
    interpolation: str | None = field(
        None,
        INTERPOLATION,
        'Interpolation of the resizing, "bilinear" or "bicubic", for training and validation. '
        'Default: the same as for the weights, else "bilinear".',
    )
    crop_mode: str | None = field(
        None,
        CROP_MODE,
        'How images are resized before the crop, for validation and prediction: "center", "squash" '
        'or "border"; see `Preprocessing`. Default: the same as for the weights, else "center".',
    )
    mean: tuple[float, float, float] | None = field(
        None,
        MEAN,
        "Mean of each RGB channel, for values in 0..1. Default: the same as for the weights, else "
        "0.5 for keras.applications' ResNetV2 and ImageNet's for others.",
    )
    std: tuple[float, float, float] | None = field(
        None,
        STD,
        "Standard deviation of each RGB channel, for values in 0..1. Default: as for `mean`.",
    )
    exif: bool = field(
        False,
        a(bool),
        "Whether to apply the EXIF orientation of JPEG files, in training, validation and the "
        "exported network; torchvision does not.",
    )
    augmentation: Augmentation = field(
        Augmentation,
        a(Augmentation),
        "Random augmentation of the training images, including MixUp, CutMix and label smoothing.",
    )
    epochs: int = field(15, whole(0), "Number of epochs, after `head_epochs`.")
    batch_size: int = field(16, whole(1), "Number of images per step, over all devices.")
    loss: str = field(
        "cross_entropy",
        one_of("cross_entropy", "binary_cross_entropy"),
        'Training loss: "cross_entropy"; or "binary_cross_entropy", averaged over the classes '
        "(https://arxiv.org/abs/2110.00476). With one label per image, the validation loss is the "
        "cross-entropy.",
    )
    target_threshold: float | None = field(
        None,
        RATE,
        "With binary_cross_entropy, mixed and smoothed labels above this become 1, and others 0. "
        "None to use them as they are.",
    )
    teacher: str | None = field(
        None,
        a(str),
        "Knowledge distillation (https://arxiv.org/abs/1503.02531): the network to learn from, "
        "trained on the same classes: a run folder, weights, or a .keras file of any model from "
        "normalised images to class probabilities. Not used in `head_epochs`.",
    )
    teacher_share: float = field(
        0.5, FRACTION, "Share of the distillation loss in the training loss, 0 to 1."
    )
    temperature: float = field(4.0, POSITIVE, "Temperature of the distillation loss.")
    optimizer: str = field(
        "adam",
        one_of("sgd", "sgdw", "adam", "adamw", "lamb"),
        '"sgd" (with momentum) or "adam", which add the weight decay to the gradient, as in '
        'torch.optim; "sgdw" or "adamw", with decoupled weight decay '
        '(https://arxiv.org/abs/1711.05101); or "lamb", for large batches, as timm.optim.Lamb '
        "(https://arxiv.org/abs/1904.00962).",
    )
    momentum: float = field(0.9, RATE, "Momentum of SGD.")
    nesterov: bool = field(False, a(bool), "Whether SGD uses Nesterov momentum.")
    learning_rate: float = field(1e-4, POSITIVE, "Peak learning rate.")
    reference_batch_size: int | None = field(
        None,
        whole(1),
        "Batch size for which `learning_rate` is given; the learning rate is scaled linearly to "
        "the actual batch size (https://arxiv.org/abs/1706.02677). None for no scaling.",
    )
    schedule: str = field(
        "constant",
        one_of("constant", "step", "cosine"),
        'Learning rate schedule: "constant"; "step", which divides by 10 at each of `milestones`; '
        'or "cosine", which decays to zero (https://arxiv.org/abs/1608.03983).',
    )
    milestones: tuple[int, ...] = field(
        (),
        Rule(
            lambda epochs: isinstance(epochs, tuple) and all(type(n) is int for n in epochs),
            "a tuple of epochs",
        ),
        'Epochs at which "step" divides the learning rate, in ascending order.',
    )
    warmup_epochs: float = field(
        0,
        NOT_NEGATIVE,
        "Number of epochs of linear warm-up, which starts at 1 % of the learning rate.",
    )
    weight_decay: float = field(0.0, NOT_NEGATIVE, "Weight decay of the optimizer.")
    decay_all: bool = field(
        False,
        a(bool),
        "Whether weight decay also applies to normalization parameters and biases.",
    )
    ema_momentum: float | None = field(
        None,
        RATE,
        "Momentum of the exponential moving average of the weights, 0.9999 for example; the "
        "averaged weights are validated and saved. None for no averaging.",
    )
    swa_start: int | None = field(
        None,
        whole(0),
        "Stochastic weight averaging (https://arxiv.org/abs/1803.05407): number of epochs after "
        "which the weights at the end of each epoch are averaged. The average is saved, with batch "
        "statistics recomputed on the training images. None for no averaging.",
    )
    swa_learning_rate: float | None = field(
        None,
        POSITIVE,
        "Constant learning rate after `swa_start`. None to continue with `schedule`.",
    )
    clip_norm: float | None = field(
        None,
        POSITIVE,
        "Maximum norm of the gradient, computed over all weights. None for no clipping.",
    )
    accumulation_steps: int = field(
        1, whole(1), "Number of batches over which gradients are averaged for one update."
    )
    freeze_until: str | None = field(
        None,
        a(str),
        'Name of the last frozen layer or stage, "layer2" for example. Everything up to it is '
        "frozen, batch statistics included. None to train the whole network.",
    )
    # Excluded from the hash, as dicts are not hashable; equal recipes still have equal hashes.
    learning_rate_multipliers: dict[str, float] = field(
        dict,
        Rule(
            lambda factors: (
                isinstance(factors, dict)
                and all(is_number(factor) and factor >= 0 for factor in factors.values())
            ),
            "a dict of numbers, 0 or more",
        ),
        'Factors of the learning rate by layer, block or stage: {"layer3": 0.3} for example.',
        hash=False,
    )
    layer_decay: float | None = field(
        None,
        Rule(lambda factor: is_number(factor) and 0 < factor <= 1, "more than 0 and at most 1"),
        "Layer-wise decay of the learning rate: its factor from each block to the one before it, "
        "starting from `fc`, with `learning_rate` (https://arxiv.org/abs/2106.08254). None for the "
        "same learning rate in all layers.",
    )
    head_epochs: int = field(
        0,
        whole(0),
        "Number of epochs at the start that train only `fc`, on features that are computed once, "
        "without augmentation.",
    )
    head_learning_rate: float = field(1e-3, POSITIVE, "Learning rate of Adam in `head_epochs`.")
    early_stopping: int | None = field(
        None,
        whole(1),
        "Number of epochs without improvement of the validation accuracy after which training "
        "stops. None to train all epochs.",
    )
    precision: str | None = field(
        "float32",
        one_of("float32", "mixed_float16", "mixed_bfloat16"),
        'Dtype policy: "float32", "mixed_float16" or "mixed_bfloat16". None for "mixed_bfloat16" '
        'on a GPU of compute capability 8.0 or more, else "float32".',
    )
    jit_compile: bool | None = field(
        None,
        a(bool),
        "Whether to compile the training and validation steps with XLA. None to compile on a GPU "
        "if 1,000 or more steps are planned.",
    )
    deterministic: bool = field(
        False,
        a(bool),
        "Whether to use only deterministic TensorFlow operations, which give identical results "
        "on the same machine.",
    )
    seed: int = field(
        0,
        whole(0),
        "Random seed of the validation split, the order, the augmentation and the initial weights.",
    )

    def __post_init__(self):
        """Validates each field, and combinations of fields."""
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
        """The evaluation transform with `train_size`, or the last of `train_sizes`, as its crop."""
        size = self.train_sizes[-1] if self.train_sizes else self.train_size
        return dataclasses.replace(self.preprocessing, crop=size or self.image_size)

    def training_preprocessing_in(self, epoch: int) -> Preprocessing:
        """Returns `training_preprocessing` for an epoch, from 0, not counting `head_epochs`."""
        count, usual = len(self.train_sizes), self.training_preprocessing
        size = self.train_sizes[epoch * count // self.epochs] if count else usual.crop
        return dataclasses.replace(usual, crop=size)

    @property
    def total_epochs(self):
        """Number of epochs in both phases, `head_epochs` and `epochs`."""
        return self.head_epochs + self.epochs

    def to_json(self) -> str:
        """The recipe as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text) -> "Recipe":
        """Reads a recipe from JSON, for example from a run folder's recipe.json.

        Args:
            text: JSON object with fields by name; missing fields get their defaults.

        Raises:
            ValueError: if the text is not valid JSON, or a field is unknown or invalid.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"The recipe is not valid JSON: {error}.") from error
        return cls.from_config(values)

    @classmethod
    def from_config(cls, values) -> "Recipe":
        """Makes a recipe from a dictionary, for example the content of a recipe.json.

        Args:
            values: Fields by name; missing fields get their defaults.

        Raises:
            ValueError: if `values` is not a dictionary, or a field is unknown or invalid.
        """
        if not isinstance(values, dict):
            raise ValueError(
                'A recipe should be a JSON object: {"model": "resnet50", ...}. '
                f"Received: {values!r:.80}"
            )
        values = {key: value for key, value in values.items() if key not in ADDED}
        return cls().changed(values)

    def resolved_as(self, other: "Recipe") -> "Recipe":
        """Returns the recipe with its unset machine and preprocessing fields taken from another."""
        left = ["precision", "jit_compile"]
        if self.image_size == other.image_size:
            left += PIXELS
        return self._filled({name: getattr(other, name) for name in left})

    def with_pixels_of(self, usual: Preprocessing) -> "Recipe":
        """Returns the recipe with its unset preprocessing fields taken from the weights'."""
        usual = usual.of_side(self.image_size)
        values = {name: getattr(usual, name) for name in PIXELS}
        if isinstance(usual.resize, tuple):  # rectangular images; here they are square
            values["resize"] = max(usual.resize)
        return self._filled(values)

    def _filled(self, values):
        left = {name: value for name, value in values.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **left)

    def located(self) -> "Recipe":
        """Returns the recipe with absolute paths."""
        paths = {"data": self.data, "weights": self.weights, "teacher": self.teacher}
        here = {name: path for name, path in paths.items() if path and os.path.exists(path)}
        absolute: dict[str, Any] = {name: os.path.abspath(path) for name, path in here.items()}
        return dataclasses.replace(self, **absolute)

    def changed(self, changes: Mapping[str, Any]) -> "Recipe":
        """Returns a copy of the recipe with some fields changed.

        Args:
            changes: Values by field name; "augmentation.mixup" names a field of the augmentation.
                Lists become tuples. Changing `image_size` resets `resize` to its default, and
                changing `weights` resets all preprocessing fields, unless they are changed too.

        Raises:
            ValueError: if a field is unknown or its value is invalid.
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
            raise ValueError(
                f"A recipe has no field {prefix}{name}. {suggestion(name, known, prefix)}"
            )


def _check_layers(recipe):
    """Raises a ValueError for names of layers that are not in the network."""
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
    """Raises a ValueError for fields that contradict each other."""
    config, augmentation = CONFIGS[recipe.model], recipe.augmentation
    _refuse_if(
        recipe.image_size > (recipe.resize or recipe.image_size),
        "The crop is larger than the resized image: image_size should be at most resize.",
        image_size=recipe.image_size,
        resize=recipe.resize,
    )
    sizes = recipe.train_sizes or (recipe.training_preprocessing.crop,)
    training_sizes = {"train_sizes" if recipe.train_sizes else "train_size": max(sizes)}
    unresized = augmentation.crop_scale is None and augmentation.padding is None
    _refuse_if(
        unresized and max(sizes) > recipe.preprocessing.resize,
        "The training crop is larger than the resized image: train_size should be at most resize.",
        **training_sizes,
        resize=recipe.resize,
    )
    _refuse_if(
        recipe.train_size and recipe.train_sizes,
        "train_sizes replaces train_size: pass one of them.",
        train_size=recipe.train_size,
        train_sizes=recipe.train_sizes,
    )
    _refuse_if(
        len(recipe.train_sizes) > recipe.epochs,
        "There should be at least one epoch for each of train_sizes.",
        train_sizes=recipe.train_sizes,
        epochs=recipe.epochs,
    )
    least = config.family.min_size
    said = f"The image size should be {least} pixels or more for {recipe.model}."
    _refuse_if(recipe.image_size < least, said, image_size=recipe.image_size)
    _refuse_if(min(sizes) < least, said, **{name: min(sizes) for name in training_sizes})
    _refuse_if(
        augmentation.mixes_images and recipe.batch_size < 2 * augmentation.repeats,
        "MixUp and CutMix need two different images in a batch: batch_size should be at least "
        "twice augmentation.repeats.",
        batch_size=recipe.batch_size,
        augmentation=augmentation,
    )
    _refuse_if(
        not recipe.total_epochs,
        "There are no epochs to train: epochs or head_epochs should be 1 or more.",
        epochs=recipe.epochs,
        head_epochs=recipe.head_epochs,
    )
    _refuse_if(
        recipe.warmup_epochs and recipe.warmup_epochs >= recipe.epochs,
        "The warm-up should be shorter than training: warmup_epochs should be less than epochs.",
        warmup_epochs=recipe.warmup_epochs,
        epochs=recipe.epochs,
    )
    _refuse_if(
        (recipe.schedule == "step") != bool(recipe.milestones),
        "milestones should be given with schedule='step', and only with it.",
        schedule=recipe.schedule,
        milestones=recipe.milestones,
    )
    edges = (0, *recipe.milestones, recipe.epochs)
    _refuse_if(
        recipe.milestones and any(low >= high for low, high in itertools.pairwise(edges)),
        "milestones should be in ascending order, between 0 and epochs.",
        milestones=recipe.milestones,
        epochs=recipe.epochs,
    )
    _refuse_if(
        recipe.target_threshold is not None and recipe.loss != "binary_cross_entropy",
        "target_threshold needs loss='binary_cross_entropy'.",
        target_threshold=recipe.target_threshold,
        loss=recipe.loss,
    )
    _refuse_if(
        recipe.layer_decay is not None and recipe.learning_rate_multipliers,
        "layer_decay and learning_rate_multipliers both set the learning rate of each layer: pass "
        "one of them.",
        layer_decay=recipe.layer_decay,
        learning_rate_multipliers=recipe.learning_rate_multipliers,
    )
    _refuse_if(
        recipe.teacher is None and (recipe.teacher_share, recipe.temperature) != (0.5, 4.0),
        "teacher_share and temperature need a teacher.",
        teacher=recipe.teacher,
        teacher_share=recipe.teacher_share,
        temperature=recipe.temperature,
    )
    _refuse_if(
        recipe.swa_start is not None and recipe.swa_start >= recipe.epochs,
        "swa_start leaves no epoch to average: it should be less than epochs.",
        swa_start=recipe.swa_start,
        epochs=recipe.epochs,
    )
    _refuse_if(
        recipe.swa_start is not None
        and (recipe.ema_momentum, recipe.early_stopping) != (None,) * 2,
        "swa_start is not supported together with ema_momentum or early_stopping.",
        swa_start=recipe.swa_start,
        ema_momentum=recipe.ema_momentum,
        early_stopping=recipe.early_stopping,
    )
    _refuse_if(
        recipe.swa_learning_rate is not None and recipe.swa_start is None,
        "swa_learning_rate needs swa_start.",
        swa_learning_rate=recipe.swa_learning_rate,
        swa_start=recipe.swa_start,
    )
    _refuse_if(
        recipe.nesterov and not (recipe.optimizer.startswith("sgd") and recipe.momentum),
        "nesterov=True needs optimizer='sgd' or 'sgdw', with momentum.",
        nesterov=recipe.nesterov,
        optimizer=recipe.optimizer,
        momentum=recipe.momentum,
    )
    _refuse_if(
        recipe.weights is None and (recipe.freeze_until or recipe.head_epochs),
        "freeze_until and head_epochs need pretrained weights. Pass weights: a file, or 'imagenet' "
        "to download the published ones.",
        weights=recipe.weights,
        freeze_until=recipe.freeze_until,
        head_epochs=recipe.head_epochs,
    )
    _refuse_if(
        recipe.freeze_until == "fc",
        "Freezing 'fc' leaves nothing to train: freeze_until should be at most "
        f"'layer{len(config.depths)}'.",
        freeze_until=recipe.freeze_until,
    )


def _refuse_if(wrong, said, **received):
    if wrong:
        came = ", ".join(f"{name}={value!r}" for name, value in received.items())
        raise ValueError(f"{said} Received: {came}")
