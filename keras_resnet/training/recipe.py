"""What a training is: everything that decides its result."""

import dataclasses

from keras_resnet.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training's data, network and numbers.

    Args:
        data_dir: A folder with `train` and `val` folders of class folders, or one folder of class
            folders.
        dataset: Instead of a folder, the name of a data set of tensorflow-datasets.
        validation_split: Share of the images that validate, 0 to 1, where they are not apart.
        max_bad: Share of undecodable image files, 0 to 1, above which there is an error.
        model: One of `keras_resnet.list_models()`.
        weights: A weights file to start from.
        image_size: Side of the images that the network sees, in pixels.
        crop_scale: Range of a training crop's share of the image's area.
        exif: True to turn JPEGs as their EXIF orientation says, in training, validation and the
            exported network; torchvision does not.
        epochs: How often training goes through the images.
        batch_size: Images a step.
        learning_rate: Adam's.
        schedule: "constant", or "cosine" to let the learning rate fall to zero along a cosine
            (https://arxiv.org/abs/1608.03983).
        seed: Fixes the split, the order, the crops and the initial weights.
    """

    data_dir: str | None = None
    dataset: str | None = None
    validation_split: float | None = None
    max_bad: float = 0.1
    model: str = "resnet34"
    weights: str | None = None
    image_size: int = 224
    crop_scale: tuple[float, float] = (0.08, 1.0)
    exif: bool = False
    epochs: int = 15
    batch_size: int = 16
    learning_rate: float = 1e-4
    schedule: str = "constant"
    seed: int = 0

    def __post_init__(self):
        """Refuses numbers that cannot be meant."""
        if (self.data_dir is None) == (self.dataset is None):
            raise ValueError(
                "A recipe needs either data_dir or dataset. "
                f"Received: data_dir={self.data_dir!r}, dataset={self.dataset!r}"
            )
        if self.image_size < 32:
            raise ValueError(
                "image_size should be 32 or more: the network reduces the image 32 times. "
                f"Received: image_size={self.image_size}"
            )
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(
                f"schedule should be 'constant' or 'cosine'. Received: schedule={self.schedule!r}"
            )
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f"{name} should be more than 0. Received: {name}={getattr(self, name)}"
                )

    @property
    def preprocessing(self) -> Preprocessing:
        """The evaluation transform: the shorter side resized to 256 / 224 of the crop."""
        return Preprocessing.for_crop(self.image_size, exif=self.exif)
