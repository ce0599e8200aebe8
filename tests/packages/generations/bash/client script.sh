#!/bin/bash
# A client without Python of its own: it sends the model back as it got it.
set -euo pipefail
case "$1" in
train)
    cp -- "$2" "$3"
    echo '{"num_examples": 5}' >"$3-metadata"
    ;;
validate) printf '{"size": %d}' "$(wc -c <"$2")" >"$3" ;;
esac
