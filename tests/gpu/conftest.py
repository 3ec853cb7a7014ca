"""Collected with `-m gpu` only, as keras would be imported before the parity suite's torch."""


def pytest_ignore_collect(collection_path, config):
    """Ignores this folder unless its tests are selected."""
    return None if config.getoption("markexpr") == "gpu" else True
