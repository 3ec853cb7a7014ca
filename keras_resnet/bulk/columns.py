"""What is written of a network's answers: columns of a table."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """One column, a vector a picture.

    Args:
        dtype: "float32" or "float16".
        normalize: Whether each vector is divided by its L2 norm.
    """

    dtype: str = "float32"
    normalize: bool = False

    def kept(self, answers):
        """What is kept of a batch's answers until they are written, arrays (batch, ...)."""
        if self.normalize:
            norms = np.linalg.norm(answers, axis=1, keepdims=True)
            answers = answers / np.maximum(norms, np.finfo(np.float32).tiny)
        return (answers.astype(self.dtype),)

    def columns(self, kept, missing):
        """Pyarrow columns by name; where `missing`, they are null."""
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
        top: How many.
    """

    names: tuple[str, ...]
    top: int

    def kept(self, answers):
        """As of `Embeddings`."""
        best = np.argsort(-answers, axis=1)[:, : self.top]
        return best, np.take_along_axis(answers, best, axis=1).astype(np.float32)

    def columns(self, kept, missing):
        """As of `Embeddings`."""
        import pyarrow as pa

        best, probabilities = kept
        names, mask = pa.array(self.names, pa.string()), pa.array(missing)
        starts = np.arange(len(best) + 1, dtype=np.int32) * best.shape[1]
        lists = [
            pa.ListArray.from_arrays(pa.array(starts), values, mask=mask)
            for values in (names.take(pa.array(best.ravel())), pa.array(probabilities.ravel()))
        ]
        return {
            "label": pa.array(np.array(self.names, object)[best[:, 0]], pa.string(), mask=missing),
            "probability": pa.array(probabilities[:, 0], mask=missing),
            "top_labels": lists[0],
            "top_probabilities": lists[1],
        }
