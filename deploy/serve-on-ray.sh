#!/bin/sh
# Serves CONFIG.toml on a node of the Ray cluster at RAY_ADDRESS (HOST:PORT of its head):
#
#   serve-on-ray.sh CONFIG.toml [--insecure]
#
# A Ray driver, which the service is, needs a node on its machine, and has to see the
# node's processes. This one offers no CPU and no GPU, so nothing runs on it. When the
# cluster goes away it ends, and is started again until there is a cluster to join; the
# service itself goes on. For containers, whose image has workers/ beside this script: what
# is left running ends with them.
set -eu
: "${RAY_ADDRESS:?HOST:PORT of the head of a Ray cluster}"

serve="$(dirname "$0")/workers/serve.py"
[ -f "$serve" ] || {
    echo "no $serve: this is for the image; elsewhere run workers/serve.py beside a 'ray start'" >&2
    exit 2
}

stay_joined() {
    while :; do
        ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0 --block || sleep 2
    done
}

stay_joined >&2 &
exec python "$serve" "$@"
