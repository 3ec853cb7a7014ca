"""The numbers of the golden files: every array is determined by its name.

For a state_dict key, `numpy.random.default_rng(zlib.crc32(key.encode()))` draws float64 values
that are rounded to float32:

- convolution and dense weights: normal, times sqrt(2 / (elements / first dimension))
- batch normalization's weight and running_var: uniform in 0.5 to 1.5
- biases and running_mean: normal, times 0.1
- the images, under the name "images": normal
"""

import zlib

import numpy as np


def array(name, shape):
    """Returns the array with this name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    leaf = name.split(".")[-1]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "images":
        values = rng.standard_normal(shape)
    elif len(shape) > 1:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif leaf in ("weight", "running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.standard_normal(shape) * 0.1
    return values.astype(np.float32)
