#!/usr/bin/env bash
# Calls the client by hand, and compares its answer.
set -euo pipefail
cd "$(dirname "$0")/.."
export FEDN_DATA_PATH=$PWD/data/b
cd client
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT

bash entrypoint.sh build "$folder/seed.safetensors"
bash entrypoint.sh train "$folder/seed.safetensors" "$folder/out.safetensors"
found=$(cat "$folder/out.safetensors-metadata")
[[ $found == '{"num_examples": 2}' ]] || { echo "wrong: $found"; exit 1; }
means=$(tail -c 24 "$folder/out.safetensors" | od -A n -t f8 | tr -s ' \n' ' ')
[[ $means == ' -0.25 84.5 2.5 ' ]] || { echo "wrong means: $means"; exit 1; }
echo "passed"
