"""Columns of a table, from a network's outputs."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """One column, with a vector for each image.

    Args:
        dtype: "float32" or "float16".
        normalize: Whether each vector is divided by its L2 norm.
    """

    dtype: str = "float32"
    normalize: bool = False

    def kept(self, answers):
        """Returns the arrays to store of a batch's outputs, (batch, ...)."""
        if self.normalize:
            norms = np.linalg.norm(answers, axis=1, keepdims=True)
            answers = answers / np.maximum(norms, np.finfo(np.float32).tiny)
        return (answers.astype(self.dtype),)

    def columns(self, kept, missing):
        """Makes the pyarrow columns, {name: column}, which are null where `missing` is true."""
        import pyarrow as pa

        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array(kept[0].ravel()), kept[0].shape[1], mask=pa.array(missing)
        )
        return {"embedding": vectors}


@dataclasses.dataclass(frozen=True)
class Labels:
    """The most probable class, and the `top` most probable ones.

    Args:
        names: The names of the classes.
        top: Number of most probable classes.
        thresholds: Least probability at which each class is predicted, for a multi-label network.
    """

    names: tuple[str, ...]
    top: int
    thresholds: tuple[float, ...] | None = None

    def kept(self, answers):
        """As for `Embeddings`."""
        order = np.argsort(-answers, axis=1)
        best = order[:, : self.top]
        found = best, np.take_along_axis(answers, best, axis=1).astype(np.float32)
        if self.thresholds is None:
            return found
        reached = answers >= np.array(self.thresholds, np.float32)
        return *found, np.where(np.take_along_axis(reached, order, axis=1), order, -1)

    def columns(self, kept, missing):
        """As for `Embeddings`."""
        import pyarrow as pa

        best, probabilities, *predicted = kept
        names, mask = pa.array(self.names, pa.string()), pa.array(missing)

        def lists(values, counts):
            starts = pa.array(np.cumsum([0, *counts], dtype=np.int32))
            return pa.ListArray.from_arrays(starts, values, mask=mask)

        counts = [best.shape[1]] * len(best)
        columns = {
            "label": pa.array(np.array(self.names, object)[best[:, 0]], pa.string(), mask=missing),
            "probability": pa.array(probabilities[:, 0], mask=missing),
            "top_labels": lists(names.take(pa.array(best.ravel())), counts),
            "top_probabilities": lists(pa.array(probabilities.ravel()), counts),
        }
        for order in predicted:
            chosen = names.take(pa.array(order[order >= 0]))
            columns["predicted"] = lists(chosen, (order >= 0).sum(axis=1))
        return columns
