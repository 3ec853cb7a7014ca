"""Measures training in comparison with torchvision and Keras.

    python benchmarks/training.py [MODEL ...] [--batch 16] [--size 224] [--json] [--quick]

A step is forward, backward and SGD with momentum, in float32. Conditions as in inference.py. The
memory of a step is the peak in addition to the process with its network. For ResNeXt, stock Keras
layers are only run up to 64 px, since larger steps take minutes. Needs the parity extra.
"""

from contest import main

if __name__ == "__main__":
    main("training", __doc__.splitlines()[0], batches=[16])
