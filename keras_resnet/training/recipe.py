"""What a training is: everything that decides its result."""

import dataclasses
import difflib
import json
import os
from typing import Any

from keras_resnet.data import Augmentation
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training.sanity import check

# What a run adds to its recipe.json.
ADDED = ("mean", "std", "classes", "command")
# What a recipe may leave to the machine that trains it, by None.
RESOLVED = ("precision", "jit_compile")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training's data, network and numbers.

    `Recipe()` with data is the flowers recipe: ResNet-34, Adam at 1e-4, 15 epochs of batches of 16.

    Args:
        data: A folder with `train` and `val` folders of class folders or of shards; one folder of
            class folders; or the name of a data set of tensorflow-datasets.
        validation_split: Share of the images that validate, 0 to 1, where they are not apart.
        max_bad: Share of undecodable image files, 0 to 1, above which there is an error.
        model: One of `keras_resnet.list_models()`.
        weights: What to start from: a file, "imagenet" or other published weights. None for random
            weights.
        dropout: Rate of dropout before `fc`.
        drop_path: Rate of stochastic depth of the last block.
        zero_init_residual: Whether blocks start as their shortcuts.
        image_size: Side of the images that validate, and are predicted later, in pixels.
        train_size: Side of the images that train, in pixels. Default: `image_size`.
        resize: Length of the shorter side before the centre crop of the evaluation transform.
            Default: 256 / 224 of `image_size`.
        exif: True to turn JPEGs as their EXIF orientation says, in training, validation and the
            exported network; torchvision does not.
        augmentation: What training does to images at random; MixUp, CutMix and label smoothing
            among it.
        epochs: How often training goes through the images, after `head_epochs`.
        batch_size: Images of a step, on all devices together.
        optimizer: "sgd" (with momentum), "adam"; with weight decay as torch.optim has it, added to
            the gradient. Or "sgdw", "adamw", which decay apart from the gradient
            (https://arxiv.org/abs/1711.05101).
        momentum: SGD's.
        nesterov: Whether SGD's momentum is Nesterov's.
        learning_rate: The highest learning rate.
        reference_batch_size: If given, the batch size that `learning_rate` is meant for: with
            another, it is multiplied by the quotient (https://arxiv.org/abs/1706.02677).
        schedule: "constant"; "step", divided by 10 at each of `milestones`; or "cosine", falling to
            zero along a cosine (https://arxiv.org/abs/1608.03983).
        milestones: Epochs, ascending, for "step".
        warmup_epochs: How long the learning rate rises from a hundredth, linearly.
        weight_decay: Of the optimizer.
        decay_all: Whether norms and biases decay too, and not the kernels alone.
        ema_momentum: If given, the moving average of the weights is what is validated and saved;
            near 1, 0.9999 for example. (The batch statistics are moving averages anyway.)
        clip_norm: If given, the gradient's largest norm, over all weights together.
        accumulation_steps: Batches whose gradients are averaged for one update.
        freeze_until: The last layer or stage that stays as it is, with all before it, "layer2" for
            example; its batch statistics too.
        learning_rate_multipliers: {name of a layer, block or stage: factor of its learning rate}.
        head_epochs: Epochs in which `fc` alone is trained, first, on features that are computed
            once, of images that are not augmented.
        head_learning_rate: Adam's in these epochs.
        early_stopping: If given, training ends after so many epochs with no better validation
            accuracy.
        precision: "float32", "mixed_float16" or "mixed_bfloat16". None for the last on a GPU that
            has it (compute capability 8.0 or more), else the first.
        jit_compile: Whether XLA compiles the steps of training and validation. None for where it
            pays: on a GPU, if enough steps are planned.
        deterministic: Whether TensorFlow takes only operations that give the same bits each time,
            on the same machine.
        seed: Fixes the split, the order, the augmentation and the initial weights.
    """

    data: str | None = None
    validation_split: float | None = None
    max_bad: float = 0.1
    model: str = "resnet34"
    weights: str | None = None
    dropout: float = 0.0
    drop_path: float = 0.0
    zero_init_residual: bool = False
    image_size: int = 224
    train_size: int | None = None
    resize: int | None = None
    exif: bool = False
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    epochs: int = 15
    batch_size: int = 16
    optimizer: str = "adam"
    momentum: float = 0.9
    nesterov: bool = False
    learning_rate: float = 1e-4
    reference_batch_size: int | None = None
    schedule: str = "constant"
    milestones: tuple[int, ...] = ()
    warmup_epochs: float = 0
    weight_decay: float = 0.0
    decay_all: bool = False
    ema_momentum: float | None = None
    clip_norm: float | None = None
    accumulation_steps: int = 1
    freeze_until: str | None = None
    # Unhashable; recipes that are equal have equal hashes all the same.
    learning_rate_multipliers: dict[str, float] = dataclasses.field(
        default_factory=dict, hash=False
    )
    head_epochs: int = 0
    head_learning_rate: float = 1e-3
    early_stopping: int | None = None
    precision: str | None = "float32"
    jit_compile: bool | None = None
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self):
        """Refuses values that cannot be meant, and pairs of them that contradict each other."""
        check(self)

    @property
    def preprocessing(self) -> Preprocessing:
        """The evaluation transform."""
        return Preprocessing.for_crop(self.image_size, self.resize, exif=self.exif)

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
        size, resize = values.get("image_size"), values.get("resize")
        if isinstance(size, int) and resize == Preprocessing.for_crop(size).resize:
            del values["resize"]  # a run's recipe.json has it resolved
        return cls().changed(values)

    def resolved_as(self, other) -> "Recipe":
        """The recipe with what it leaves to the machine as another one has it."""
        open_ = [name for name in RESOLVED if getattr(self, name) is None]
        return self.changed({name: getattr(other, name) for name in open_})

    def located(self) -> "Recipe":
        """The recipe with paths that mean the same from any current folder."""
        paths = {name: getattr(self, name) for name in ("data", "weights")}
        here = {name: path for name, path in paths.items() if path and os.path.exists(path)}
        return self.changed({name: os.path.abspath(path) for name, path in here.items()})

    def changed(self, changes) -> "Recipe":
        """The recipe with other values.

        Args:
            changes: {name: value}; `augmentation.mixup` for a value of the augmentation. Lists, as
                JSON has them, become tuples. With another `image_size` and no `resize`, that
                becomes the default again.

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
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {prefix}{near[0]}?" if near else f"There are {', '.join(known)}."
            raise ValueError(f"A recipe has no {prefix}{name}. {hint}")
