#!/usr/bin/env bash
# Set up all workers of a Cloud TPU, run a command on them, or stop it.
#
#   tools/launch/tpu_vm.sh [--dry-run] NAME ZONE setup
#   tools/launch/tpu_vm.sh [--dry-run] NAME ZONE run COMMAND ...
#   tools/launch/tpu_vm.sh [--dry-run] NAME ZONE stop
#
# setup copies the last commit of this checkout to the workers and installs it there. run
# starts the command on every worker in that folder; the workers find each other, and
# --workdir has to be on a disk that all of them see, or in a bucket that is mounted on
# them. stop sends SIGTERM to all experiments, so that they save; run the same command
# again to go on.
# With --dry-run the commands are printed. It needs gcloud.
set -euo pipefail

usage() {
    sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

dry=
if [ "${1:-}" = --dry-run ]; then
    dry=1
    shift
fi
[ $# -ge 3 ] || usage
name=$1 zone=$2 what=$3
shift 3
folder=jaxfer

call() {
    if [ -n "$dry" ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

on_all() {
    call gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case $what in
setup)
    cd "$(dirname "${BASH_SOURCE[0]}")/../.."
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    call git archive --output "$scratch/$folder.tar.gz" HEAD
    call gcloud compute tpus tpu-vm scp "$scratch/$folder.tar.gz" "$name:" \
        --zone="$zone" --worker=all
    on_all "mkdir -p $folder && tar xzf $folder.tar.gz -C $folder && cd $folder && python3 -m venv .venv && .venv/bin/pip install -q -e '.[data,tpu]'"
    ;;
run)
    [ $# -gt 0 ] || usage
    on_all "cd $folder && . .venv/bin/activate && exec $(printf '%q ' "$@")"
    ;;
stop)
    # The brackets keep the pattern from matching the shell that runs pkill.
    on_all "pkill -TERM -f '[p]ython.* -m experiments'"
    ;;
*)
    usage
    ;;
esac
