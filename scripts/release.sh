#!/bin/sh
# Write what a release publishes into dist/ (or $OUT). The same commit gives the same bytes, except for the signature and the images with torch.
#   KEY=private.pem   also sign the folder: an elliptic-curve key, made by
#                     `openssl ecparam -name prime256v1 -genkey -noout -out private.pem`
#   REGISTRY=host/path  also build the images by buildah, and push them and the chart there; images.yaml then names them
#                     by their digests. IMAGES="ingest cli" takes only these; PLAIN_HTTP=1 is for a registry without TLS.
#                     With KEY, cosign signs them there
set -eu
version="$1"
cd "$(dirname "$0")/.."
uv="${UV:-uv}"
out="${OUT:-dist}"
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
notes=$(awk -v version="$version" '/^## /{on = $2 == version || $2 == version ","; next} on' CHANGELOG.md)
[ -n "$notes" ] || { echo "CHANGELOG.md has no section $version; write it" >&2; exit 1; }
[ "$(git rev-parse --is-shallow-repository)" = false ] || { echo "the history is cut off, so the list of changes would be too; run git fetch --unshallow --tags" >&2; exit 1; }
tagged=$(git rev-parse -q --verify "refs/tags/v$version^{commit}" || git rev-parse HEAD)
[ "$tagged" = "$(git rev-parse HEAD)" ] || { echo "another commit has the tag v$version already; choose another version by make version TO=…" >&2; exit 1; }
# The tag before this commit: whoever builds the release again has a tag on the commit itself.
last=$(git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null || true)
[ -z "${KEY:-}" ] || [ -r "$KEY" ] || { echo "KEY: there is no file $KEY that can be read; name the private key" >&2; exit 1; }
if [ -n "${REGISTRY:-}" ]; then
    case "$REGISTRY" in
    *://* | */ | *[!a-z0-9./:_-]*) echo "REGISTRY: $REGISTRY is no host/path; write it in small letters, without https:// and without / at its end" >&2; exit 1 ;;
    esac
    for command in buildah helm ${KEY:+cosign}; do
        command -v $command >/dev/null || { echo "REGISTRY needs $command, which is not installed" >&2; exit 1; }
    done
    known=$(ls services && printf 'train-launcher\ncli')
    images="${IMAGES:-$known}"
    for name in $images; do
        echo "$known" | grep -qxF "$name" || { echo "IMAGES: there is no image $name; there are" $known >&2; exit 1; }
    done
fi
# Whoever builds the commit again could not make what a changed file made.
changed=$([ -z "${KEY:-}" ] || git status --porcelain --untracked-files=no)
[ -z "$changed" ] || { echo "files differ from the commit, and a signed release is built from a commit alone; commit them:" "$changed" >&2; exit 1; }
if [ -n "${REGISTRY:-}" ] && [ -n "${KEY:-}" ]; then
    # cosign takes a private key in a form of its own alone, with a password.
    keys=$(mktemp -d)
    trap 'rm -rf "$keys"' EXIT
    trap 'exit 1' HUP INT TERM
    export COSIGN_PASSWORD=
    said=$(cosign import-key-pair --key "$KEY" --output-key-prefix "$keys/cosign" 2>&1) || { echo "KEY: $said" >&2; exit 1; }
fi
rm -rf "$out"
mkdir -p "$out"

# Without the links of the notes, which lead to files of the repository.
echo "the list of changes"
{
    printf '# Tunewheel %s\n%s\n\n## Changes%s\n\n' "$version" "$notes" "${last:+ since $last}"
    git log --no-merges --format='- %s' "${last:+$last..}HEAD"
} | sed -E 's/\[([^]]*)\]\([^)]*\)/\1/g' >"$out/CHANGES.md"

echo "wheels"
$uv build --quiet --all-packages --wheel --build-constraints requirements.lock --require-hashes --out-dir "$out"
rm -f "$out/.gitignore"

# As pip resolves for a user, without this workspace's corrections of other packages' metadata.
echo "the lock of what the wheels need"
# shellcheck disable=SC2046  # two words for each package
echo "tunewheel==$version" | $uv pip compile - --no-config --find-links "$out" --constraints requirements.lock --universal \
    --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet \
    $(ls "$out" | sed -n 's/^\(tunewheel[a-z_]*\)-.*/--no-emit-package \1/p' | tr _ -) >"$out/requirements.txt"

# Not validated against the schema, which takes eight seconds each.
echo "bills of materials"
mkdir "$out/sbom"
bill() { # NAME LOCK PYPROJECT
    PYTHONWARNINGS=ignore $uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements "$2" --no-validate --output-reproducible --of JSON \
        --pyproject "$3" --mc-type application --output-file "$out/sbom/$1-$version.cdx.json"
}
bill tunewheel "$out/requirements.txt" pyproject.toml
bill train-launcher services/train/launcher.lock services/train/pyproject.toml
for folder in cli services/*; do bill "$(basename "$folder")" "$folder/requirements.lock" "$folder/pyproject.toml"; done

echo "the chart"
"${PYTHON:-.venv/bin/python}" deploy/helm/generate.py --pack "$out/chart" >/dev/null
# Not by helm package, which writes the time of the day into the archive.
tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    -C "$out/chart" -cf - tunewheel | gzip -n >"$out/tunewheel-$version.tgz"
rm -r "$out/chart"

# For whoever has the release alone: links between pages, and the commands on the example's files, work there.
echo "the pages"
mkdir "$out/pages"
git ls-files -z '*.md' docs examples | tar --null -T - -cf - | tar -C "$out/pages" -xf -

if [ -n "${REGISTRY:-}" ]; then
    echo "the chart and the images to $REGISTRY"
    touch -d "@$SOURCE_DATE_EPOCH" "$out/tunewheel-$version.tgz" # becomes the chart's time there, hence part of its digest
    pushed=$(helm push ${PLAIN_HTTP:+--plain-http} "$out/tunewheel-$version.tgz" "oci://$REGISTRY" 2>&1) || { echo "$pushed" >&2; exit 1; }
    chart=$(echo "$pushed" | sed -n 's/^Digest: *//p')
    digests="" signed="$REGISTRY/tunewheel@$chart"
    for name in $images; do
        image="$REGISTRY/$name:$version"
        scripts/image.sh "$name" "$image" >/dev/null
        buildah ${STORAGE_DRIVER:+--storage-driver "$STORAGE_DRIVER"} push --quiet ${PLAIN_HTTP:+--tls-verify=false} --digestfile "$out/digest" "$image"
        digests="$digests$(printf '\n    %s: %s' "$name" "$(cat "$out/digest")")" signed="$signed $REGISTRY/$name@$(cat "$out/digest")"
        rm "$out/digest"
    done
    if [ -n "${KEY:-}" ]; then
        echo "signatures of the chart and the images"
        # With the key alone, which asks no server, and in the form that programs before cosign 3 read too.
        # shellcheck disable=SC2086  # a word for each
        cosign sign --key "$keys/cosign.key" --yes --use-signing-config=false --tlog-upload=false --new-bundle-format=false \
            ${PLAIN_HTTP:+--allow-http-registry} $signed 2>"$keys/said" || { cat "$keys/said" >&2; exit 1; }
    fi
    # Only now: with half of the digests the chart would take the other images by their tags.
    echo "# The chart: oci://$REGISTRY/tunewheel:$version@$chart" >"$out/images.yaml"
    printf 'image:\n  repository: %s\n  digests:%s\n' "$REGISTRY" "$digests" >>"$out/images.yaml"
fi

sums=$(cd "$out" && find * -type f | LC_ALL=C sort | xargs sha256sum)
echo "$sums" >"$out/SHA256SUMS"
if [ -n "${KEY:-}" ]; then
    $uv tool run --quiet --from model-signing==1.1.1 --with pyopenssl model_signing sign key "$out" --no-ignore-git-paths --private_key "$KEY" \
        --signature "$out/release.sig"
fi
echo "$out"
