"""The files of `torch.save`, without PyTorch: `read` and `write` are the one door.

A reader of the package may skip what is behind it, from the file's bytes inwards:

    containers, tar   the three containers that torch.save has had
    unpickler         the pickles in them, which are programs: read by a machine that runs nothing
    tensors           what those may name, and the bounds of every tensor
    writer            the newest container, written

Nothing here knows Keras or the networks.
"""

from keras_resnet.weights.pytorch.containers import read
from keras_resnet.weights.pytorch.writer import write

__all__ = ["read", "write"]
