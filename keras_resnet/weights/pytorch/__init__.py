"""Reads and writes files of `torch.save` without PyTorch: `read` and `write`.

The modules, from the file's bytes inwards:

    containers, tar   the three containers of torch.save
    unpickler         reads the pickles in them, which are programs, without executing anything
    tensors           the objects that pickles may refer to, and bounds checks of every tensor
    writer            writes the newest container

They are independent of Keras and of the networks.
"""

from keras_resnet.weights.pytorch.containers import read
from keras_resnet.weights.pytorch.writer import write

__all__ = ["read", "write"]
