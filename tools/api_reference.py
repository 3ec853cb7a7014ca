"""Makes pages of the public docstrings.

    python tools/api_reference.py

writes site/index.html.
"""

from pathlib import Path

import pdoc

from keras_resnet_cli import quiet

with quiet():
    import keras_resnet

    for name in keras_resnet.__all__:  # loaded at first use, which pdoc does not do
        vars(keras_resnet)[name] = getattr(keras_resnet, name)
pdoc.render.configure(docformat="google")
pdoc.pdoc("keras_resnet", output_directory=Path("site"))
