"""Where labelled images come from, before anything is decoded."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Source:
    """Encoded images with their labels, in a fixed order.

    Args:
        class_names: Names of the classes; a label is an index into them.
        names: Name of each image, for reports: its path, or its place in a data set.
        items: Function to a fresh, unshuffled `tf.data.Dataset` of (index, item, label); both
            numbers are int64.
        read: Function from an item's tensor to the encoded image, a scalar string tensor.
        shuffle_buffer: How many items are shuffled at a time: all of them where they are small.
    """

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    items: Callable[[], tf.data.Dataset]
    read: Callable[[tf.Tensor], tf.Tensor]
    shuffle_buffer: int

    def __len__(self):
        """How many images there are."""
        return len(self.names)
