"""Collected for `-m gpu` only, as keras would be imported before the parity suite's torch."""


def pytest_ignore_collect(collection_path, config):
    """Passes over this folder where other tests are asked for."""
    return None if config.getoption("markexpr") == "gpu" else True
