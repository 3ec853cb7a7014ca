"""Where in an image a trained network sees what it names."""

import dataclasses
from pathlib import Path

from keras_resnet import visualize
from keras_resnet.export.network import checked_names
from keras_resnet.training.opening import open_network


@dataclasses.dataclass(frozen=True)
class Explained:
    """A picture of what speaks for a class.

    Args:
        picture: The file.
        class_name: The class.
        probability: The network's, of this class.
    """

    picture: Path
    class_name: str
    probability: float


def explain(
    image,
    output=None,
    *,
    run=None,
    model=None,
    weights=None,
    preprocessing=None,
    class_name=None,
    layer=None,
) -> Explained:
    """Draws an image, as a run's network or any with weights sees it, under its Grad-CAM.

    Args:
        image: An image file.
        output: The picture to write. Default: `NAME_explained.png` in the current folder.
        run: A run folder.
        model: Name of a network, instead of `run`; needs `weights`.
        weights: A file, or the name of published weights; only with `model`.
        preprocessing: As of `open_network`.
        class_name: The class that is looked for. Default: the most probable one.
        layer: As of `visualize.grad_cam`.

    Returns:
        The picture's path, the class and its probability.

    Raises:
        ValueError: if there is no such network, class or layer, or the image cannot be decoded.
    """
    image = Path(image)
    network = open_network(run, model, weights, preprocessing=preprocessing)
    names = checked_names(network.model, network.class_names)
    if class_name is not None and class_name not in names:
        some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(f"There is no such class, but {some}. Received: {class_name!r}")
    content = {str(image): image.read_bytes()}
    pixels = network.preprocessing.batch(content, normalise=False)
    inputs = network.preprocessing.normalise(pixels).numpy()
    answer = network.model.predict_on_batch(inputs)[0]
    index = int(answer.argmax()) if class_name is None else names.index(class_name)
    heat = visualize.grad_cam(network.model, inputs[0], index, layer=layer)
    picture = visualize.explanation(
        pixels[0],
        heat,
        f"{names[index]}: {answer[index]:.3f}",
        output or f"{image.stem}_explained.png",
    )
    return Explained(picture, names[index], float(answer[index]))
