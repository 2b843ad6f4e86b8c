#!/bin/sh
# Build the image NAME, tagged TAG, by buildah, which needs no daemon: image.sh NAME TAG [OPTION OF BUILDAH…]
# NAME is a folder of services/, cli, or train-launcher. Files have the commit's time.
set -eu
name="$1" tag="$2"
shift 2
cd "$(dirname "$0")/.."
service="$name" lock="services/$name/requirements.lock" target=service
case "$name" in
cli) lock=cli/requirements.lock target=cli ;;
train-launcher) service=train lock=services/train/launcher.lock ;;
esac
epoch="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -n 1)
# OCI's format, because Docker's names the containers of the build, which differ each time. Layers are kept, since images share stages.
exec buildah ${STORAGE_DRIVER:+--storage-driver "$STORAGE_DRIVER"} bud --quiet --format oci --layers --timestamp "$epoch" --file deploy/images/Dockerfile --target "$target" \
    --tag "$tag" --build-arg "SERVICE=$service" --build-arg "LOCK=$lock" --build-arg "SOURCE_DATE_EPOCH=$epoch" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD)" \
    ${PYTHON_IMAGE:+--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"} "$@" .
