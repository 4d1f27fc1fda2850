#!/bin/sh
# Installs the requirements of the tests and runs them. See --help. POSIX sh.
set -eu

program=test.sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
# shellcheck source=deploy/lib/common.sh
. "$here/lib/common.sh"

# Pinned, so that results can be repeated later and with the pinned Rust.
nextest_version=0.9.143
deny_version=0.20.2
# A direct question takes up to 8 s, so a round of 10 s is the shortest that decides.
quickstart_rounds=5
quickstart_period_s=10
# Number of histories in the property tests with --long. The tests have their own default.
long_cases=10000
# With --long, each fuzz target runs for this time.
fuzz_s=20

usage() {
    cat <<'HELP'
Installs the requirements of the tests and runs them. Stops at the first failure.

usage: sh deploy/test.sh [--quick | --long]

  (nothing)  formatting, clippy, documentation, tests (nextest profile `ci` if CI is set), wrong
             clocks (profile `clocks`), simulation (profile `simulation`), doctests, licences and
             sources of dependencies (if cargo-deny is installed), systemd units, and the
             demonstration of the quickstart
  --quick    only formatting, clippy and nextest profile `quick`
  --long     everything above, and also: cargo-deny with advisories (if their database can be
             reached), property tests with many more histories, nextest profile `long` (it has a
             soak test of 35 minutes; UPTIME_SOAK_ROUNDS changes its length), and a short run of
             each fuzz target (if nightly Rust and cargo-fuzz are installed; see deploy/fuzz.sh)
  --help     show this text

On Debian and Ubuntu, the script installs missing requirements: curl, ca-certificates, gcc,
systemd (for systemd-analyze), faketime (for wrong clocks) and python3-venv with apt-get (as root
or with sudo), Rust with the rustup installer, cargo-nextest with cargo, and a Python environment
in target/python. On Debian, without --quick, it also installs chromium for the browser tests.
Without chromium the browser tests are skipped and say so. If CI is set, they fail.

exit status: 0 all tests passed, 1 a step failed (the last line on standard error names it),
             64 wrong usage
HELP
}

mode=all
for argument in "$@"; do
    case $argument in
        --quick) mode=quick ;;
        --long) mode=long ;;
        --help | -h) usage; exit 0 ;;
        *)
            warn "$program: unknown argument: $argument; see: sh deploy/test.sh --help"
            exit 64
            ;;
    esac
done
if [ $# -gt 1 ]; then
    warn "$program: too many arguments; see: sh deploy/test.sh --help"
    exit 64
fi

# Tests start their own daemons with their own settings. They must not reach a real yagna, except
# the test below, nor use the settings of an aggregator on this machine.
unset YAGNA_APPKEY YAGNA_API_URL
for name in $(env | sed -n 's/^\(UPTIME_[A-Z_]*\)=.*/\1/p'); do
    case $name in
        UPTIME_LOG | UPTIME_PYTHON | UPTIME_TEST_CASES) ;;
        UPTIME_SOAK_ROUNDS | UPTIME_SOAK_SEED) ;;
        # For the one test that can use a real daemon.
        UPTIME_REAL_YAGNA | UPTIME_REAL_YAGNA_APPKEY) ;;
        *) unset "$name" ;;
    esac
done
if [ -n "${CI:-}" ]; then
    # CI builds once: without incremental compilation it writes less, and builds as users do.
    export CARGO_INCREMENTAL=0
fi

cd "$root"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/golem-uptime-test.XXXXXX")
# Read by apt_install.
# shellcheck disable=SC2034
apt_log=$scratch/apt.log
trap 'rm -rf "$scratch"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
: >"$scratch/summary"

# Runs a step and exits if it fails. The output of the step is not changed.
# Arguments: name, a command.
step() {
    step_name=$1
    shift
    say "==> $step_name"
    step_started_s=$(date +%s)
    step_status=0
    # Not `if "$@"`: in a condition, set -e would be off inside a function.
    set +e
    (set -e; "$@")
    step_status=$?
    set -e
    step_took_s=$(($(date +%s) - step_started_s))
    if [ "$step_status" -eq 0 ]; then
        printf '%-12s ok      %5s s\n' "$step_name" "$step_took_s" >>"$scratch/summary"
        return 0
    fi
    printf '%-12s FAILED  %5s s\n' "$step_name" "$step_took_s" >>"$scratch/summary"
    cat "$scratch/summary"
    warn "$program: step $step_name failed (exit status $step_status); later steps did not run"
    exit 1
}

# ---- Requirements of the tests -----------------------------------------------------------------

python=$root/target/python/bin/python

# Ubuntu has chromium only as a snap: the browser tests are skipped there.
is_debian() { grep -qx 'ID=debian' /etc/os-release 2>/dev/null; }

install_packages() {
    further=
    [ "$mode" = quick ] || have chromium || ! is_debian || further="$further chromium"
    have systemd-analyze || further="$further systemd"
    [ "$mode" = quick ] || have faketime || further="$further faketime"
    python3 -c 'import ensurepip, venv' 2>/dev/null || further="$further python3 python3-venv"
    # Meant to be split: a list of words.
    # shellcheck disable=SC2086
    ensure_packages $further
}

install_cargo_tools() {
    if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        have rustup || die "cargo fmt and cargo clippy are missing; install rustfmt and clippy"
        rustup component add --toolchain "${RUSTUP_TOOLCHAIN:-$channel}" rustfmt clippy
    fi
    cargo nextest --version >/dev/null 2>&1 ||
        cargo install cargo-nextest --locked --version "$nextest_version"
    if [ "$mode" = long ]; then
        cargo deny --version >/dev/null 2>&1 ||
            cargo install cargo-deny --locked --version "$deny_version"
    fi
}

# The environment is reused while the requirements do not change; a copy of them is its stamp.
install_python() {
    stamp=$root/target/python/test-requirements.txt
    if [ -x "$python" ] && "$python" -c 'import grpc' 2>/dev/null &&
        cmp -s "$here/test-requirements.txt" "$stamp"; then
        return 0
    fi
    rm -rf "$root/target/python"
    mkdir -p "$root/target"
    python3 -m venv "$root/target/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        -r "$here/test-requirements.txt" </dev/null
    cp "$here/test-requirements.txt" "$stamp"
}

# ---- The steps ---------------------------------------------------------------------------------

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
}

tests() {
    profile=default
    if [ -n "${CI:-}" ]; then profile=ci; fi
    if [ "$mode" = quick ]; then profile=quick; fi
    # Tests mostly wait for rounds and time limits: run two per processor.
    NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$((2 * $(nproc)))}
    export NEXTEST_TEST_THREADS
    cargo nextest run --workspace --locked --profile "$profile"
}

# They wait for minutes and compute little: all run at once.
clocks() {
    cargo nextest run --workspace --locked --profile clocks
}

# They compute all the time: one runs per processor.
simulation() {
    cargo nextest run --workspace --locked --profile simulation
}

# nextest does not run doctests. The output is hidden if there are none: "0 passed" would look as
# if nothing was tested.
doctests() {
    cargo test --doc --workspace --locked >"$scratch/doctests" 2>&1 || {
        cat "$scratch/doctests"
        return 1
    }
    if grep -q '^test .* \.\.\. ok$' "$scratch/doctests"; then
        cat "$scratch/doctests"
    else
        say "there are no doctests"
    fi
}

# The database of advisories is remote and changes every week, so it is checked only with --long and
# skipped if it cannot be reached.
advisories() {
    if cargo deny --locked fetch db >"$scratch/advisories" 2>&1; then
        cargo deny --locked check --disable-fetch advisories
    else
        say "advisories: not checked; cannot reach their database:"
        grep -m 1 -i 'fail\|unable\|error' "$scratch/advisories" || cat "$scratch/advisories"
    fi
}

dependencies() {
    cargo deny --locked check bans licenses sources
    [ "$mode" = long ] || return 0
    advisories
    # The dependencies of the fuzz targets may not be on this machine before they are built.
    for package in proto probe aggregator; do
        say "$package/fuzz:"
        cargo deny --locked --manifest-path "$root/$package/fuzz/Cargo.toml" \
            --config "$root/deny.toml" check bans licenses sources
    done
}

# The soak test mostly waits: run one test more than there are processors.
long_tests() {
    NEXTEST_TEST_THREADS=${NEXTEST_TEST_THREADS:-$((1 + $(nproc)))}
    export NEXTEST_TEST_THREADS
    UPTIME_TEST_CASES=${UPTIME_TEST_CASES:-$long_cases} \
        cargo nextest run --workspace --locked --profile long --cargo-profile long
}

# The script does not install a second Rust for this: without one, this step is skipped.
fuzzing() {
    fuzz_status=0
    sh "$here/fuzz.sh" "$fuzz_s" || fuzz_status=$?
    if [ "$fuzz_status" -eq 69 ]; then
        warn "$program: the fuzz targets ran only over their corpus"
        return 0
    fi
    return "$fuzz_status"
}

# In target/, so that no test run leaves files in a temporary directory.
demonstration() {
    rm -rf "$root/target/quickstart"
    sh "$here/quickstart.sh" --rounds "$quickstart_rounds" --period-s "$quickstart_period_s" \
        --dir "$root/target/quickstart" </dev/null
}

all_started_s=$(date +%s)
step packages install_packages
# Not a step: it changes the PATH of this script.
ensure_rust
step tools install_cargo_tools
if [ -z "${UPTIME_PYTHON:-}" ]; then
    step python install_python
    UPTIME_PYTHON=$python
fi
export UPTIME_PYTHON

step format cargo fmt --all --check
step clippy cargo clippy --workspace --all-targets --locked -- -D warnings
if [ "$mode" != quick ]; then
    step doc documentation
fi
step tests tests
if [ "$mode" != quick ]; then
    step clocks clocks
    step simulation simulation
    step doctests doctests
    if [ -f "$root/deny.toml" ] && cargo deny --version >/dev/null 2>&1; then
        step dependencies dependencies
    else
        printf '%-12s skipped: %s\n' dependencies 'cargo-deny is not installed' >>"$scratch/summary"
    fi
    [ "$mode" != long ] || step long long_tests
    [ "$mode" != long ] || step fuzz fuzzing
    step units sh "$here/lib/verify_units.sh"
    step quickstart demonstration
fi

say ""
cat "$scratch/summary"
say "All passed in $(($(date +%s) - all_started_s)) s."
