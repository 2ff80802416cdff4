#!/bin/bash
# Trains on every host of a TPU slice, from a machine with gcloud:
#   launch/tpu_vm.sh NAME ZONE configs/quickstart.py gs-mount/runs/quickstart [--config.key=value ...]
# The workdir lies on a file system that all hosts see (Filestore, or a bucket mounted with gcsfuse); the checkout is
# copied to each host. The same command goes on with a run that was stopped.
set -euo pipefail

usage='usage: launch/tpu_vm.sh NAME ZONE CONFIG WORKDIR [FLAGS]'
name=${1:?$usage} zone=${2:?$usage} config=${3:?$usage} workdir=${4:?$usage}
shift 4
flags=$(printf ' %q' --config="$config" --workdir="$workdir" "$@")

root=$(cd "$(dirname "$0")/.." && pwd)
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git -C "$root" archive --format=tar.gz --prefix=vqdit/ --output="$archive" HEAD

gcloud compute tpus tpu-vm scp "$archive" "$name":vqdit.tar.gz --zone="$zone" --worker=all
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  set -e
  tar xzf vqdit.tar.gz && cd vqdit
  test -d .venv || python3 -m venv .venv
  .venv/bin/pip install -q -e '.[tpu]'
  .venv/bin/python train.py$flags"
