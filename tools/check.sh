#!/usr/bin/env bash
# What a person runs before a commit: format, lint, tests. With --all, those that are slow, or need JAX or torch, too.
set -euo pipefail
cd "$(dirname "$0")/.."

ruff format --check .
ruff check .
python -m pytest
if [ "${1:-}" = "--all" ]; then
  python -m pytest -m "slow or backend"
  python -m pytest tests/parity -m parity
fi
