"""Exports a run's best network as a SavedModel: a program for trainings on other backends.

Usage: KERAS_BACKEND=tensorflow python -m keras_resnet.training.export_run RUN
"""

import sys

from keras_resnet import export
from keras_resnet.training.run import Run


def export_run(folder):
    """Writes saved_model/1 in a run folder; returns its path."""
    run = Run.open(folder)
    return export.saved_model(
        run.model(),
        run.folder / "saved_model",
        preprocessing=run.preprocessing,
        class_names=run.class_names,
    )


if __name__ == "__main__":
    export_run(sys.argv[1])
