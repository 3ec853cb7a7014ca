"""The folder that a training leaves behind, and what can be asked of it."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.preprocessing import Preprocessing

BATCH_SIZE = 32


def new_run_folder(output) -> Path:
    """`output`, or if it holds something the first of output-2, output-3, ... that does not."""
    output = Path(output)
    if output.is_file():
        raise ValueError(
            f"The run folder {output} is a file. Choose another name with --output, or remove it."
        )
    folder, number = output, 1
    while folder.exists() and any(folder.iterdir()):
        number += 1
        folder = output.with_name(f"{output.name}-{number}")
    return folder


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training.

    Args:
        folder: The run folder.
        class_names: Names of the classes.
        preprocessing: The evaluation transform that the network was trained for.

    Example:
    >>> run = keras_resnet.training.Run.open("runs/flowers")  # doctest: +SKIP
    >>> run.predict([Path("daisy.jpg").read_bytes()])  # doctest: +SKIP
    """

    folder: Path
    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    @classmethod
    def open(cls, folder) -> "Run":
        """Reads a run folder.

        Raises:
            ValueError: if the folder is not one, or was not finished.
        """
        folder = Path(folder)
        missing = [
            name
            for name in ("best.keras", "class_indices.json", "recipe.json")
            if not (folder / name).is_file()
        ]
        if missing:
            raise ValueError(
                f"{folder} is not the folder of a training: {', '.join(missing)} not found. Pass "
                "the folder that train_flowers.py printed, runs/flowers for example."
            )
        indices = json.loads((folder / "class_indices.json").read_text())
        recipe = json.loads((folder / "recipe.json").read_text())
        return cls(
            folder,
            tuple(indices[str(number)] for number in range(len(indices))),
            Preprocessing(
                recipe["resize"],
                recipe["image_size"],
                tuple(recipe["mean"]),
                tuple(recipe["std"]),
                recipe.get("exif", False),
            ),
        )

    def model(self) -> keras.Model:
        """The network of the best epoch."""
        return keras.saving.load_model(self.folder / "best.keras", compile=False)

    def predict(self, images) -> np.ndarray:
        """Probabilities of encoded images.

        Args:
            images: JPEG, PNG, GIF, BMP or WebP files, bytes.

        Returns:
            float32 (images, classes).

        Raises:
            ValueError: if one is no image, with its place in the list.
        """
        inputs = []
        for number, content in enumerate(images):
            try:
                inputs.append(self.preprocessing(content))
            except tf.errors.InvalidArgumentError as error:
                raise ValueError(
                    f"Image {number} cannot be decoded: expected a JPEG, PNG, GIF, BMP or WebP "
                    f"file, received {len(content)} bytes that start with {content[:8]!r}."
                ) from error
        return self.model().predict(tf.stack(inputs), batch_size=BATCH_SIZE, verbose=0)
