"""How many images a second are trained on, beside torchvision and Keras.

    python benchmarks/training.py [MODEL ...] [--batch 16] [--size 224] [--json] [--quick]

A step is forward, backward and SGD with momentum, in float32. Conditions as in inference.py. The
step's memory is the peak above the process with its built network. Stock Keras layers take part
in ResNeXt only up to 64 px: beyond, a step of theirs takes minutes. Needs the parity extra.
"""

from contest import main

if __name__ == "__main__":
    main("training", __doc__.splitlines()[0], batches=[16])
