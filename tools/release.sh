#!/usr/bin/env bash
# Builds dist/: a source distribution with all files in git, and a wheel from it. Checks both, and
# installs the wheel in a fresh environment; with --tests, also runs the tests of the unpacked source
# distribution, with further arguments for pytest. Uploads nothing. Needs the release extra.
#
#   KERAS_RESNET_URL=https://github.com/OWNER/NAME tools/release.sh --tests
#
# The variable makes the links of the README absolute, and adds the project's URLs.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf build dist
python -m build
twine check --strict dist/*
check-wheel-contents dist/*.whl

sources="$(echo dist/*.tar.gz)"
missing="$(comm -23 <(git ls-files | sort) <(tar --list --file "$sources" | cut -d/ -f2- | sort))"
if [ -n "$missing" ]; then
  echo "$sources lacks: $missing" >&2
  exit 1
fi

dist="$PWD/dist"
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
unset PYTHONPATH
cd "$fresh"
python -m venv environment
# shellcheck disable=SC1091
. environment/bin/activate
pip install --quiet "$dist"/*.whl
keras-resnet --version
keras-resnet summary resnet18
python -c "import keras_resnet
keras_resnet.weights.save(keras_resnet.ResNet20(), 'resnet20.pth')"
keras-resnet convert resnet20.pth --output resnet20.keras --verify
if [ "${1:-}" = "--tests" ]; then
  tar --extract --strip-components 1 --one-top-level=unpacked --file "$dist/$(basename "$sources")"
  pip install --quiet "$(echo "$dist"/*.whl)[test]"
  cd unpacked
  python -m pytest "${@:2}"
fi
