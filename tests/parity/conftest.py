"""The parity suite imports torch before keras: the other order crashes the interpreter."""

import pytest

pytest.importorskip("torch", reason="the parity suite needs the parity extra")
