#!/usr/bin/env bash
# Builds llama.cpp's programs that write and run GGUF files into FOLDER: convert_hf_to_gguf.py, llama-quantize and
# llama-server (ten minutes of a processor, once). The sources are in PyPI's sdist of llama-cpp-python.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?folder for the sources and programs}; mkdir -p "$folder"; folder=$(cd "$folder" && pwd)
uv=${UV:-uv} bin="$folder/.tools/bin"

# What is in the folder is deleted for a new version of the sources.
[ -z "$(ls -A "$folder")" ] || [ -d "$folder/.tools" ] || { echo "$folder has other files; name another folder" >&2; exit 1; }
for compiler in cc c++; do
    command -v $compiler >/dev/null || { echo "llama.cpp needs a C and a C++ compiler, and $compiler is not here: apt-get install g++" >&2; exit 1; }
done
$uv venv --quiet --allow-existing --python '>=3.11' "$folder/.tools"
$uv pip sync --quiet --python "$bin/python" --require-hashes "$here/tools.lock"

if ! cmp --silent "$here/source.lock" "$folder/source.lock"; then
    find "$folder" -mindepth 1 -maxdepth 1 ! -name .tools -exec rm -rf {} +
    # pip asks an sdist for its name before it keeps the file, by the build backend in tools.lock.
    "$bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-binary :all: \
        --require-hashes --requirement "$here/source.lock" --dest "$folder"
    sources=$(cd "$folder" && echo llama_cpp_python-*.tar.gz)
    tar -xzf "$folder/$sources" -C "$folder" --strip-components 3 "${sources%.tar.gz}/vendor/llama.cpp"
    rm -rf "$folder/$sources" "$folder/.git" # it points to a repository that is not here
    cp "$here/source.lock" "$folder"
fi

# The server without its page, which would be fetched from a hub, and without TLS.
{
    "$bin/cmake" -S "$folder" -B "$folder/build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TESTS=OFF \
        -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
        -DLLAMA_OPENSSL=OFF &&
        "$bin/cmake" --build "$folder/build" --parallel "$(getconf _NPROCESSORS_ONLN)" --target llama-quantize llama-server
} >"$folder/build.log" 2>&1 || { tail -n 40 "$folder/build.log"; exit 1; }
touch "$folder/.installed"
