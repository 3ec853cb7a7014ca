"""What a training is: everything that decides its result."""

import dataclasses
import difflib
import itertools
import json

from keras_resnet.configs import CONFIGS
from keras_resnet.data import Augmentation
from keras_resnet.preprocessing import Preprocessing

OPTIMIZERS = ("sgd", "sgdw", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
# What a run adds to its recipe.json.
ADDED = ("mean", "std", "classes", "command")


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
        precision: "float32", "mixed_float16" or "mixed_bfloat16".
        jit_compile: Whether XLA compiles the training step.
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
    augmentation: Augmentation = Augmentation()
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
    learning_rate_multipliers: dict[str, float] = dataclasses.field(default_factory=dict)
    head_epochs: int = 0
    head_learning_rate: float = 1e-3
    early_stopping: int | None = None
    precision: str = "float32"
    jit_compile: bool = False
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self):
        """Refuses numbers that cannot be meant, and pairs of them that contradict each other."""
        self._check_kinds()
        self._check_numbers()
        self._check_names()
        self._check_pairs()

    def _check_kinds(self):
        kinds = {
            bool: (
                *("zero_init_residual", "exif", "nesterov", "decay_all", "jit_compile"),
                "deterministic",
            ),
            Augmentation: ("augmentation",),
            tuple: ("milestones",),
            dict: ("learning_rate_multipliers",),
            str: ("data", "weights", "freeze_until", "model", "optimizer", "schedule", "precision"),
        }
        for kind, names in kinds.items():
            for name in names:
                value = getattr(self, name)
                optional = value is None and name in ("data", "weights", "freeze_until")
                if not optional and not isinstance(value, kind):
                    raise ValueError(
                        f"{name} should be a {kind.__name__}. Received: {name}={value!r}"
                    )
        if not all(type(epoch) is int for epoch in self.milestones):
            raise ValueError(f"milestones are epochs. Received: milestones={self.milestones!r}")

    def _check_numbers(self):
        def refuse(name, expected):
            raise ValueError(f"{name} should be {expected}. Received: {name}={self._shown(name)}")

        whole = ("batch_size", "accumulation_steps", "image_size")
        optional = ("train_size", "resize", "reference_batch_size", "early_stopping")
        for name in (*whole, *optional, "epochs", "head_epochs", "seed"):
            value = getattr(self, name)
            if name in optional and value is None:
                continue
            least = 0 if name in ("epochs", "head_epochs", "seed") else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                refuse(name, f"a whole number, {least} or more")
        positive = ("learning_rate", "head_learning_rate", "clip_norm")
        least = ("weight_decay", "warmup_epochs")
        shares = ("momentum", "dropout", "drop_path", "ema_momentum", "validation_split")
        for name in (*positive, *least, *shares, "max_bad"):
            value = getattr(self, name)
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

    def _check_names(self):
        for name, choices in (
            ("model", tuple(CONFIGS)),
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} should be one of {', '.join(choices)}. "
                    f"Received: {name}={self._shown(name)}"
                )
        names = set(_layer_names(CONFIGS[self.model]))
        frozen = {} if self.freeze_until is None else {"freeze_until": self.freeze_until}
        multiplied = {f"learning_rate_multipliers[{name!r}]": name for name in self._multipliers()}
        for argument, name in {**frozen, **multiplied}.items():
            if name not in names:
                raise ValueError(
                    f"{argument} should name a layer, block or stage of {self.model}: conv1, "
                    f"layer1, layer1.0, ..., fc. Received: {name!r}"
                )
        if self.freeze_until == "fc":
            raise ValueError("freeze_until='fc' leaves nothing to train. The last is 'layer4'.")

    def _multipliers(self):
        for name, factor in self.learning_rate_multipliers.items():
            if isinstance(factor, bool) or not isinstance(factor, (int, float)) or factor < 0:
                raise ValueError(
                    "A factor of learning_rate_multipliers should be a number, 0 or more. "
                    f"Received: learning_rate_multipliers[{name!r}]={factor!r}"
                )
            yield name

    def _check_pairs(self):
        def contradiction(what, *names):
            received = ", ".join(f"{name}={self._shown(name)}" for name in names)
            raise ValueError(f"{what} Received: {received}")

        if self.image_size > (self.resize or self.image_size):
            contradiction(
                "The crop is larger than what it is cut from: image_size should be at most resize.",
                *("image_size", "resize"),
            )
        unresized = self.augmentation.crop_scale is None and self.augmentation.padding is None
        if unresized and self.training_preprocessing.crop > self.preprocessing.resize:
            contradiction(
                "The crop of training is larger than what it is cut from.", "train_size", "resize"
            )
        for name in ("image_size", "train_size"):
            if (getattr(self, name) or 32) < 32:
                contradiction(f"{name} should be 32 or more: the network reduces 32 times.", name)
        if not self.epochs and not self.head_epochs:
            contradiction("There is nothing to train.", "epochs", "head_epochs")
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            contradiction("The warm-up is as long as training.", "warmup_epochs", "epochs")
        if (self.schedule == "step") != bool(self.milestones):
            contradiction(
                "milestones are the epochs at which schedule='step' divides the learning rate.",
                *("schedule", "milestones"),
            )
        edges = (0, *self.milestones, self.epochs)
        if self.milestones and any(a >= b for a, b in itertools.pairwise(edges)):
            contradiction("milestones should ascend, between 0 and epochs.", "milestones", "epochs")
        if self.nesterov and not (self.optimizer.startswith("sgd") and self.momentum):
            contradiction("nesterov is for SGD with momentum.", "nesterov", "optimizer", "momentum")
        if self.weights is None and (self.freeze_until or self.head_epochs):
            names = ("weights", "freeze_until", "head_epochs")
            contradiction(
                "Only trained weights are worth freezing. Pass weights: a file, or 'imagenet' for "
                "the published ones, which are downloaded.",
                *names,
            )

    def _shown(self, name):
        return repr(getattr(self, name))

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
        if not isinstance(values, dict):
            raise ValueError('A recipe is a JSON object: {"model": "resnet50", ...}.')
        size, resize = values.get("image_size"), values.get("resize")
        if isinstance(size, int) and resize == Preprocessing.for_crop(size).resize:
            del values["resize"]  # a run's recipe.json has it resolved
        return cls().changed({key: value for key, value in values.items() if key not in ADDED})

    def changed(self, changes) -> "Recipe":
        """The recipe with other values.

        Args:
            changes: {name: value}; `augmentation.mixup` for a value of the augmentation. Lists, as
                JSON has them, become tuples. With another `image_size` and no `resize`, that
                becomes the default again.

        Raises:
            ValueError: if there is no such name, or a value will not do.
        """
        own, augmentation = {}, {}
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


def _layer_names(config):
    """The names of all layers, blocks and stages."""
    yield from ("conv1", "bn1", "fc")
    for stage, depth in enumerate(config.depths, 1):
        yield f"layer{stage}"
        yield from (f"layer{stage}.{index}" for index in range(depth))
