#!/usr/bin/env bash
# A parameter sweep from beginning to end: builds flashd and flash, starts a daemon, submits 20 jobs, waits for them, gathers their
# results into a table with a plot, and ends the daemon again.
#
# A daemon that FLASH_SERVER names is used as it is. Otherwise one is started in a fresh folder and nothing of it is left behind.
# Needs what Debian and Ubuntu bring (bash, awk, coreutils), Rust, and a C compiler. FLASH_BIN names a folder with built programs.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
# Numbers with a point, whatever the language.
export LC_ALL=C

jobs=20
orbits=${SWEEP_ORBITS:-1500}
results=${SWEEP_RESULTS:-$root/target/sweep}

say() { printf '==> %s\n' "$*" >&2; }

# --- build ---------------------------------------------------------------------------------------------------------------------
if [ -z "${FLASH_BIN:-}" ]; then
    if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    command -v cargo >/dev/null 2>&1 || { say "Rust is needed: https://rustup.rs"; exit 1; }
    command -v cc >/dev/null 2>&1 || { say "a C compiler is needed: apt-get install -y --no-install-recommends gcc libc6-dev"; exit 1; }
    say "building flashd and flash (some minutes the first time)"
    cargo build --release --locked
    FLASH_BIN=${CARGO_TARGET_DIR:-$root/target}/release
fi
PATH="$FLASH_BIN:$PATH"

# --- daemon --------------------------------------------------------------------------------------------------------------------
work='' daemon='' ids=()
# The process that jobs belong to outlives the daemon; without one it would stay for a minute. Its command line names our folder.
end_runner() {
    for entry in /proc/[0-9]*; do
        # A process may be gone before it is looked at.
        line=$({ tr '\0' '\n' <"$entry/cmdline"; } 2>/dev/null) || continue
        if grep -qxF "$work/data" <<<"$line" && [ "$(sed -n 2p <<<"$line")" = runner ]; then
            kill -TERM "${entry#/proc/}" 2>/dev/null || true
        fi
    done
}
finish() {
    status=$?
    trap - EXIT
    # What an interrupted sweep leaves queued or running is cancelled; jobs would outlive the daemon.
    if [ "$status" -ne 0 ] && [ "${#ids[@]}" -gt 0 ]; then
        flash cancel "${ids[@]}" >/dev/null 2>&1 || true
        timeout 30 flash wait "${ids[@]}" >/dev/null 2>&1 || true
    fi
    if [ -n "$daemon" ]; then
        kill -TERM "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
        end_runner
    fi
    if [ "$status" -ne 0 ] && [ -s "$work/flashd.log" ]; then
        say "the daemon's log ends with:"
        tail -n 20 "$work/flashd.log" >&2
    fi
    [ -z "$work" ] || rm -rf "$work"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -n "${FLASH_SERVER:-}" ]; then
    say "using the daemon at $FLASH_SERVER"
else
    work=$(mktemp -d "${TMPDIR:-/tmp}/flash-sweep.XXXXXX")
    say "starting a daemon in $work"
    flashd serve --data "$work/data" --listen off >"$work/flashd.log" 2>&1 </dev/null &
    daemon=$!
    export FLASH_SERVER="unix://$work/data/flashd.sock"
    for _ in $(seq 300); do
        flash nodes >/dev/null 2>&1 && break
        kill -0 "$daemon" 2>/dev/null || { say "the daemon ended before it answered"; exit 1; }
        sleep 0.1
    done
fi
flash nodes

# --- the sweep -----------------------------------------------------------------------------------------------------------------
rm -rf "$results"
mkdir -p "$results"
say "submitting $jobs jobs of 1 CPU: the logistic map for r = 3.05 .. 4.00"
for number in $(seq -w 1 "$jobs"); do
    r=$(awk -v n="$number" -v jobs="$jobs" 'BEGIN { printf "%.2f", 4 - (jobs - n) * 0.05 }')
    ids+=("$(flash submit -n "lyapunov-$number" -c 1 -l sweep=lyapunov -- \
        sh "$root/examples/sweep/lyapunov.sh" "$r" "$orbits" "$results/$number.txt")")
done

say "waiting"
flash wait "${ids[@]}"
flash ls --all --limit 5 -l sweep=lyapunov
say "what the last job wrote"
flash logs "${ids[-1]}"

# --- the results ---------------------------------------------------------------------------------------------------------------
found=$(find "$results" -name '*.txt' | wc -l)
if [ "$found" -ne "$jobs" ]; then
    say "$found results instead of $jobs"
    exit 1
fi
say "Lyapunov exponents (left of the bar: a cycle; right of it: chaos)"
cat "$results"/*.txt | tee "$results/table" | awk '
    function bar(n,   text) { while (n-- > 0) text = text "#"; return text }
    {
        left = ""; right = ""
        cells = int(($2 < 0 ? -$2 : $2) * 24 + 0.5); if (cells > 24) cells = 24
        if ($2 < 0) left = bar(cells); else right = bar(cells)
        printf "  r = %.2f  %9.5f +- %.5f  %24s|%s\n", $1, $2, $3, left, right
        last = $2
    }
    END {
        error = last - log(2); if (error < 0) error = -error
        printf "\nat r = 4: %.6f; theory says ln 2 = %.6f\n", last, log(2)
        if (error > 0.001) { print "that is too far off"; exit 1 }
    }'
say "done; the table is in ${results#"$root"/}/table"
