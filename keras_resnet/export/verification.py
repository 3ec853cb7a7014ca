"""Runs what was exported in a process of its own, as another system would."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def probabilities_in_new_process(version, images) -> np.ndarray:
    """Asks a SavedModel for its probabilities, in a process that does not know this package.

    Args:
        version: The SavedModel's folder, `saved_model/1` for example.
        images: Encoded images, bytes.

    Returns:
        float32 (images, classes).

    Raises:
        ValueError: if the process fails; its last words are in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "images").mkdir()
        for number, content in enumerate(images):
            (folder / "images" / f"{number:06}").write_bytes(content)
        program = Path(__file__).with_name("run_saved_model.py")
        output = folder / "probabilities.npy"
        # -P: the program's own folder is not searched for modules.
        command = [sys.executable, "-P", program, version, folder / "images", output]
        done = subprocess.run(  # noqa: S603 (our own program)
            [str(part) for part in command],
            capture_output=True,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=False,
        )
        if done.returncode:
            raise ValueError(f"The SavedModel {version} could not be run:\n{done.stderr[-2000:]}")
        return np.load(output)
