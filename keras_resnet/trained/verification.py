"""Verifies exports of trained networks."""

import logging
from collections.abc import Iterable
from pathlib import Path

from keras_resnet import export
from keras_resnet.export import record
from keras_resnet.trained.exporting import check_artefact
from keras_resnet.trained.network import open_network
from keras_resnet.trained.run import BEST, newest_run

logger = logging.getLogger("keras_resnet")


def verify_export(
    artefact: str | Path,
    images: Iterable[str | Path],
    *,
    run: str | Path | None = None,
    model: str | None = None,
    weights: str | Path | None = None,
) -> export.Comparison:
    """Compares the predictions of an exported network and of its model for image files.

    Args:
        artefact: A SavedModel's version folder, or a .onnx, .tflite or .xml file.
        images: Paths of the image files.
        run: The run folder. Default, without `weights`: the one that contains the export, else the
            newest finished one in `runs`.
        model: As for `Network.from_weights`; needs `weights`.
        weights: As for `Network.from_weights`, instead of `run`.

    Returns:
        The comparison. `check` raises an error if the predictions differ.

    Raises:
        ValueError: if it is not an export, the model has other weights, or an image cannot be
            decoded.
        OSError: if an image cannot be read.
    """
    artefact = Path(artefact)
    check_artefact(artefact)
    if run is None and model is None and weights is None:
        run = next((f for f in artefact.resolve().parents if (f / BEST).is_file()), None)
        if run is None:
            run = newest_run()
            logger.info(
                "%s is not in a run folder: comparing with the newest run, %s.", artefact, run
            )
    said = None if run else record.preprocessing_of(record.read(artefact))
    network = open_network(run, model, weights, preprocessing=said)
    contents = {str(image): Path(image).read_bytes() for image in images}
    return export.verify(artefact, contents, network.model, preprocessing=network.preprocessing)
