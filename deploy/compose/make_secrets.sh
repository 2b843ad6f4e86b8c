#!/bin/sh
# Make what compose.yaml mounts as secrets, below ./secrets or the folder that is named. What is there stays.
set -eu
folder=${1:-$(dirname "$0")/secrets}

# Docker mounts each file as it is, and the user of the containers must be able to read it. The folder keeps
# everybody else of this machine out.
umask 022
mkdir -p "$folder/identity"
chmod 700 "$folder"

keep() { # keep FILE [PREFIX]: 256 random bits, as text of one line
    [ -s "$folder/$1" ] && return
    printf '%s%s' "${2:-}" "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')" >"$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
}

hash() { { sha256sum 2>/dev/null || shasum -a 256; } <"$folder/$1" | cut -d ' ' -f 1; }

keys() { # keys FILE NAME SECRET ROLES: the file of keys that services know a caller by
    [ -s "$folder/identity/$1" ] && return
    printf 'keys:\n  %s:\n    sha256: %s\n    roles: [%s]\n' "$2" "$(hash "$3")" "$4" >"$folder/identity/$1.new"
    mv "$folder/identity/$1.new" "$folder/identity/$1"
}

keep api_key tw-
keep engine_api_key tw-
keep completion_secret
keep pseudonym_secret
keep session_secret
keep grafana_password
keys keys.yaml operator api_key 'viewer, publisher, application, reviewer, operator'
keys engine-keys.yaml gateway engine_api_key 'application, viewer, operator'
echo "the secrets are in $folder: keep pseudonym_secret as long as the log and the store"
