"""Metrics of multi-label predictions: average precision, F1, and thresholds.

Targets are (images, classes), 1 for the classes of an image and 0 for others; scores are
(images, classes), 0 to 1. Results are equal to scikit-learn's.
"""

import numpy as np

DEFAULT_THRESHOLD = 0.5  # for a class without images


def average_precisions(targets, scores) -> np.ndarray:
    """Average precision of each class, float64 (classes,); NaN for a class without images.

    Source: sklearn.metrics.average_precision_score.
    """
    found = np.full(targets.shape[1], np.nan)
    for index, (shown, score) in enumerate(zip(targets.T, scores.T, strict=True)):
        if shown.any():
            hits, predicted, _ = _curve(shown, score)
            found[index] = np.sum(np.diff(hits, prepend=0) * hits / predicted) / hits[-1]
    return found


def best_thresholds(targets, scores) -> np.ndarray:
    """Threshold of each class with the highest F1, float32 (classes,).

    A class is predicted if its score is at least the threshold, which is halfway between two
    scores, so that rounding has no effect. 0.5 for a class without images.
    """
    found = np.full(targets.shape[1], DEFAULT_THRESHOLD, np.float32)
    for index, (shown, score) in enumerate(zip(targets.T, scores.T, strict=True)):
        if shown.any():
            hits, predicted, values = _curve(shown, score)
            best = int(np.argmax(hits / (predicted + hits[-1])))
            above, below = values[best], [*values, 0][best + 1]
            middle = np.float32((float(above) + float(below)) / 2)
            found[index] = middle if middle > below else above
    return found


def _curve(shown, score):
    """Returns, for each distinct score in descending order: hits, number of predictions, score."""
    order = np.argsort(-score, kind="stable")
    values = score[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    return np.cumsum(shown[order] > 0)[last], last + 1, values[last]


def f1_scores(targets, predicted) -> np.ndarray:
    """F1 of each class, float64 (classes,); NaN for a class without images.

    Source: sklearn.metrics.f1_score.
    """
    hits, shown = (targets * predicted).sum(0), targets.sum(0)
    with np.errstate(invalid="ignore"):
        found = 2 * hits / (shown + predicted.sum(0))
    return np.where(shown > 0, found, np.nan)


def f1_micro(targets, predicted) -> float:
    """F1 over all labels of all images; 0 if there are none."""
    return float(2 * (targets * predicted).sum() / max(targets.sum() + predicted.sum(), 1))


def mean(values) -> float:
    """Mean over the classes that are not NaN; NaN if there are none."""
    return float(np.mean(shown)) if len(shown := values[~np.isnan(values)]) else float("nan")


def cross_entropy(targets, scores) -> float:
    """The mean binary cross-entropy; scores are clipped by 1e-7, as Keras does."""
    scores = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(targets * np.log(scores) + (1 - targets) * np.log(1 - scores)))
