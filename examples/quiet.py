"""Imports without TensorFlow's greetings on the terminal."""

import contextlib
import os


@contextlib.contextmanager
def quiet():
    """Drops what is meanwhile written to standard error, by C++ too; errors still raise."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
