#!/usr/bin/env bash
# Checks to run before a commit. With --all, also those that are slow, or need JAX, torch, Ray or a browser.
set -euo pipefail
cd "$(dirname "$0")/.."

ruff format --check .
ruff check .
mypy
lint-imports
codespell
python -m pytest
if [ "${1:-}" = "--all" ]; then
  python -m pytest -m "slow or backend or browser or engine"
  for backend in jax torch; do
    KERAS_BACKEND="$backend" python -m pytest \
      tests/test_models.py tests/test_features.py tests/test_cifar.py tests/test_compositions.py \
      tests/test_explanations.py
  done
  python -m pytest tests/parity -m parity
fi
