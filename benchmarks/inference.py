"""How many images a second are classified, beside torchvision, Keras and ONNX Runtime.

    python benchmarks/inference.py [MODEL ...] [--batch 1 16] [--size 224] [--json] [--quick]

Each contestant has a process of its own, the same number of threads and the same settings of the
memory allocator; they take turns, and the medians of at least three rounds count. The last row is
what the multiply-adds alone would take at the speed of a large product of matrices, measured in
the same rounds. Needs the parity and export extras.
"""

from contest import main

if __name__ == "__main__":
    main("inference", __doc__.splitlines()[0], batches=[1, 16])
