#!/usr/bin/env bash
# Starts Ray on machines that you log into: on one as the head, on the others as workers.
#
#   on one machine        bash ray_start.sh head
#   on each of the others bash ray_start.sh worker HEAD:6379
#   on the head           ablate sweep SPEC --address auto
#   at the end, on each   ray stop
#
# Run it in the environment that has ablate. More arguments go to `ray start`: --num-cpus=8, --num-gpus=1, --memory=BYTES.
set -euo pipefail

usage() {
    sed -n 's/^#   //p' "$0" >&2
    exit 2
}

role=${1:-}
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}

case $role in
head)
    shift
    ray get-auth-token --generate >/dev/null # makes ~/.ray/auth_token unless there is one
    ray start --head --port=6379 --include-dashboard=false "$@"
    echo "on each other machine: copy $token to the same place (scp; chmod 600), then" >&2
    echo "    bash ray_start.sh worker $(hostname):6379" >&2
    ;;
worker)
    address=${2:-}
    [ -n "$address" ] || usage
    shift 2
    if [ ! -s "$token" ] && [ -z "${RAY_AUTH_TOKEN:-}" ]; then
        echo "$token is missing: copy it from the head" >&2
        exit 2
    fi
    ray start --address="$address" "$@"
    ;;
*)
    usage
    ;;
esac
python -c 'import importlib.metadata as m; print("ablate-harness", m.version("ablate-harness"), "torch", m.version("torch"), "ray", m.version("ray"))' >&2
