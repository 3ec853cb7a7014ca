"""Measures inference in comparison with torchvision, Keras and ONNX Runtime.

    python benchmarks/inference.py [MODEL ...] [--batch 1 16] [--size 224] [--json] [--quick]

Each contestant runs in its own process, with the same number of threads and the same settings of
the memory allocator; they take turns, and the medians of at least three rounds are reported. The
last row is the speed of the multiply-adds alone, like a large matrix product, measured in the same
rounds. Needs the parity and export extras.
"""

from contest import main

if __name__ == "__main__":
    main("inference", __doc__.splitlines()[0], batches=[1, 16])
