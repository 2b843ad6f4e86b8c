#!/bin/sh
# Make what compose.yaml mounts as secrets, below ./secrets or the folder that is named. What is there stays.
set -eu
folder=${1:-$(dirname "$0")/secrets}

# Docker mounts each file as it is, and the user of the containers must be able to read it. The folder keeps
# everybody else of this machine out.
umask 022
mkdir -p "$folder/identity"
chmod 700 "$folder"

text() { base64 | tr '+/' '-_' | tr -d '=\n'; }

keep() { # keep FILE [PREFIX]: 256 random bits, as text of one line
    [ -s "$folder/$1" ] && return
    printf '%s%s' "${2:-}" "$(head -c 32 /dev/urandom | text)" >"$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
}

hash() { { sha256sum 2>/dev/null || shasum -a 256; } <"$folder/$1" | cut -d ' ' -f 1; }

keys() { # keys FILE NAME SECRET ROLES: the file of keys that services know a caller by
    [ -s "$folder/identity/$1" ] && return
    printf 'keys:\n  %s:\n    sha256: %s\n    roles: [%s]\n' "$2" "$(hash "$3")" "$4" >"$folder/identity/$1.new"
    mv "$folder/identity/$1.new" "$folder/identity/$1"
}

signer() { # signer SERVICE: the key by which it signs events, and its public part beside those of the others
    [ -s "$folder/signing_key_$1" ] && return
    public=$folder/identity/signing-keys.json
    openssl genpkey -algorithm ed25519 -outform DER -out "$folder/der.new"
    d=$(tail -c 32 "$folder/der.new" | text)
    x=$(openssl pkey -in "$folder/der.new" -inform DER -pubout -outform DER | tail -c 32 | text)
    rm "$folder/der.new"
    jwk="\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"kid\": \"$1-$(printf %.12s "$x")\", \"x\": \"$x\""
    others=$(tr -d '\n' 2>/dev/null <"$public" | sed 's/ *\] *} *$/, /') || true
    printf '%s{%s, "service": "%s"}]}\n' "${others:-{\"keys\": [}" "$jwk" "$1" >"$public.new"
    mv "$public.new" "$public"
    printf '{%s, "d": "%s"}' "$jwk" "$d" >"$folder/signing_key_$1"
}

keep api_key tw-
keep engine_api_key tw-
keep completion_secret
keep pseudonym_secret
keep session_secret
keep grafana_password
keys keys.yaml operator api_key 'viewer, publisher, expert, application, reviewer, operator'
keys engine-keys.yaml gateway engine_api_key 'application, viewer, operator'
for service in console curate eval ingest registry serve-gateway; do signer $service; done
echo "the secrets are in $folder: keep pseudonym_secret as long as the log and the store"
