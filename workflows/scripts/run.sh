#!/usr/bin/env bash
# Run the workflow at one scale, then write the report:  run.sh SCALE [snakemake options]
# Holds one lock per checkout, so that a lock left by a killed snakemake can be told from a living one and removed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
scale=$1
shift
profile=workflows/profiles/$scale
report=results/$scale/report.html

alive() {  # is another snakemake at work in this folder?
    local process
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/cwd" 2>/dev/null)" = "$PWD" ] || continue
        grep -qaz 'bin/snakemake$' "$process/cmdline" 2>/dev/null && return 0
    done
    return 1
}

if command -v flock >/dev/null; then
    exec 9<"${BASH_SOURCE[0]}"
    flock --nonblock 9 || { echo "error: another 'make figures' is at work in $PWD; wait for it or stop it" >&2; exit 2; }
fi
if [ -n "$(ls -A .snakemake/locks 2>/dev/null)" ] && ! alive; then
    echo "removing the lock of a snakemake that was killed" >&2
    snakemake --profile "$profile" --unlock --quiet all
fi

status=0
snakemake --profile "$profile" "$@" 9<&- || status=$?
case " $* " in *" -n "* | *" --dry-run "*) exit "$status" ;; esac
if [ "$status" -ne 0 ]; then
    echo "not complete: see the messages above; the same command continues from the last checkpoints." >&2
    echo "What exists already can be drawn with: make preview SCALE=$scale" >&2
    exit "$status"
fi
# The whole report where every figure exists, else one of what was asked for (make figures ARGS=dreamer_figure_6).
if ! { [ "$#" -gt 0 ] && snakemake --profile "$profile" --report "$report" --quiet all 2>/dev/null; }; then
    snakemake --profile "$profile" "$@" --report "$report" --quiet all
fi
echo
echo "figures: $PWD/results/$scale/<paper>/"
ls -1 results/"$scale"/*/*.{pdf,png,gif,mp4,md} 2>/dev/null | sed 's/^/  /' || true
echo "report:  $PWD/$report"
