#!/usr/bin/env bash
# Build .venv from requirements.lock, once per lock; `make` calls this before anything else.
# The stamp is written last: an interrupted set-up has none and is begun again from nothing.
# Environment: PYTHON (an interpreter of version 3.11), TORCH_INDEX (an extra index with a smaller torch build).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX

readonly VENV=.venv STAMP=.venv/.lock-stamp WANTED=3.11
readonly NEEDED_MB=${SETUP_NEEDED_MB:-3000}   # CPU wheels: 2.1 GB installed, and what pip holds meanwhile

say()  { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 2; }

wanted_stamp() { sha256sum requirements.lock | cut -d' ' -f1; echo "${TORCH_INDEX:-}"; }

whole() { [ -f "$STAMP" ] && [ -x "$VENV/bin/python" ] && [ "$(head -n1 "$STAMP")" = "$(wanted_stamp | head -n1)" ]; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

find_python() {
    local candidate version seen=""
    for candidate in ${PYTHON:-python3.11 python3 python}; do
        version=$(version_of "$candidate") || continue
        [ "$version" = "$WANTED" ] && { echo "$candidate"; return; }
        seen="$seen $candidate is $version;"
    done
    fail "Python $WANTED is needed and was not found (${seen:- no ${PYTHON:-python3} here;} the lock holds for $WANTED only)." \
        "Debian 12: apt-get install python3.11 python3.11-venv. Elsewhere: install it and run" \
        "make PYTHON=/path/to/python3.11 TARGET, or use conda: mamba env create -f environment.yml"
}

free_mb() { df -Pm . | awk 'NR == 2 { print $4 }'; }

check_disk() {
    [ "$(free_mb)" -ge "$NEEDED_MB" ] || fail "the disk is too full: $(free_mb) MB free in $PWD, the environment needs" \
        "$NEEDED_MB MB (about 9000 MB where pip picks the CUDA build of torch). Free some space (df -h .; du -sh .venv" \
        "results ~/.cache/pip) and run the same command again"
}

install() {
    local python=$1 extra=()
    [ -z "${TORCH_INDEX:-}" ] || extra=(--extra-index-url "$TORCH_INDEX")
    say "setting up $VENV from requirements.lock ($("$python" --version), a few minutes, once)"
    "$python" -m venv "$VENV" || fail "could not create $VENV (see above)"
    if ! "$VENV/bin/python" -m pip install --disable-pip-version-check -qq --progress-bar off \
        "${extra[@]}" -r requirements.lock; then
        check_disk
        fail "pip could not install requirements.lock (see above). No space left on device: free some (df -h . /tmp ~)." \
            "A failed download: check the network. Then run the same command again; nothing half-made passes for whole"
    fi
    "$VENV/bin/python" -m pip check --disable-pip-version-check >/dev/null || fail "the installed packages do not fit" \
        "each other: $("$VENV/bin/python" -m pip check 2>&1 | head -n3)"
    wanted_stamp > "$STAMP.tmp"
    mv "$STAMP.tmp" "$STAMP"
    say "set-up done"
}

whole && exit 0
exec 9<"${BASH_SOURCE[0]}"                       # two calls at once: the second waits, then finds the work done
if command -v flock >/dev/null; then flock 9; fi
whole && exit 0
[ -w . ] || fail "$PWD is not writable (read-only disk or another owner); copy the checkout to a folder that you may write to"
python=$(find_python)
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "this Python cannot make virtual environments (no ensurepip)." \
    "On Debian and Ubuntu: apt-get install python$WANTED-venv"
rm -rf "$VENV"
check_disk
install "$python"
