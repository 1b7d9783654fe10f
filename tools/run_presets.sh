#!/usr/bin/env bash
# Run presets one after another on an accelerator, and compare each with its paper.
#
#   tools/run_presets.sh DATA_DIR RUNS_DIR PRESET ... [-- OPTION ...]
#
# Example: tools/run_presets.sh data runs omniglot_1shot omniglot_5shot omniglot_modern
# The run of a preset is in RUNS_DIR/PRESET. Run the same command again to resume runs
# that were stopped. The options are passed to every run. The exit code is 1 if a run
# failed or a value is outside its tolerance.
set -uo pipefail

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

[ $# -ge 3 ] || usage
data=$(realpath -m "$1") runs=$(realpath -m "$2")
shift 2
presets=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    presets+=("$1")
    shift
done
[ $# -gt 0 ] && shift
[ ${#presets[@]} -gt 0 ] || usage

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
python=${PYTHON:-python3}
failed=0
for preset in "${presets[@]}"; do
    # The docstring of the preset names its experiment.
    experiment=$(grep -om1 'experiments\.[a-z_]*' "configs/$preset.py") || {
        failed=1
        continue
    }
    # Many steps per call: a step of a small network is shorter than its launch.
    "$python" -m "$experiment" --config "configs/$preset.py" \
        --workdir "$runs/$preset" --data.dir "$data" --run.steps-per-call 50 \
        --run.save-every 2000 --run.log-every 100 "$@"
    code=$?
    # Stopped by Ctrl-C: the run has saved its state, and later presets are not run.
    [ "$code" -ne 130 ] || exit 130
    [ "$code" -eq 0 ] && "$python" tools/check_result.py "$runs/$preset" || failed=1
done
exit "$failed"
