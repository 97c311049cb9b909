#!/bin/sh
# Installs MedDiff-FM into the Python that is found first, in two steps that an image keeps apart: what it needs, which
# seldom changes, and itself with the weights. Dockerfile, Apptainer definition and the test of both run this and nothing else.
#
#   install.sh needs CHECKOUT     packages; TORCH, a requirement, says which PyTorch, EXTRAS which of pyproject.toml
#   install.sh itself CHECKOUT    MedDiff-FM, without asking for packages
#   install.sh check              starts it once, as the health check does
set -eu

EXTRAS="${EXTRAS:-dicom,pacs,cluster,training}"
pip() { python3 -m pip --disable-pip-version-check --no-input "$@"; }

case "${1:-}" in
needs)
    if [ -n "${TORCH:-}" ]; then
        pip install --no-cache-dir "$TORCH"
    fi
    list=$(mktemp)
    python3 "$(dirname "$0")/requirements.py" "$2/pyproject.toml" "$EXTRAS" >"$list"
    pip install --no-cache-dir --requirement "$list"
    rm "$list"
    ;;
itself)
    pip install --no-cache-dir --no-deps --no-build-isolation "$2"
    ;;
check)
    meddifffm models check
    ;;
*)
    echo "usage: install.sh needs|itself CHECKOUT, or install.sh check" >&2
    exit 2
    ;;
esac
