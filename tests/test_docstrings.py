"""The examples in docstrings."""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest

import keras_resnet

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NAMES = {"keras": keras, "keras_resnet": keras_resnet, "np": np}
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(keras_resnet.__path__, "keras_resnet.")
)
EXAMPLES = [
    pytest.param(test, id=test.name.removeprefix("keras_resnet."))
    for name in MODULES
    for test in doctest.DocTestFinder().find(importlib.import_module(name), name, extraglobs=NAMES)
    if test.examples
]


@pytest.mark.parametrize("test", EXAMPLES)
def test_examples(test, folder_here):
    said = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert not said, "".join(said)
