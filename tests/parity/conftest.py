"""The parity suite imports all of torch before keras: the other order crashes the interpreter."""

import pytest

pytest.importorskip("torchvision", reason="the parity suite needs the parity extra")
