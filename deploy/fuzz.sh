#!/bin/sh
# Runs every fuzz target for a while. See --help. POSIX sh.
set -eu

program=fuzz.sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
# shellcheck source=deploy/lib/common.sh
. "$here/lib/common.sh"

# The default time for each target.
seconds=60
# A target that needs more time or memory for one input has found a fault.
input_s_max=10
memory_mib_max=2048

usage() {
    cat <<'HELP'
Runs every fuzz target of proto, probe and aggregator under libFuzzer, one after the other.

usage: sh deploy/fuzz.sh [SECONDS]

  SECONDS  time for each target [default: 60]
  --help   show this text

It requires nightly Rust (rustup toolchain install nightly), a C++ compiler (Debian: g++) and
cargo-fuzz (cargo install cargo-fuzz --locked), and does not install them. New inputs are saved in
target/fuzz-corpus; the committed corpus is not changed. An input that breaks a target is saved in
PACKAGE/fuzz/artifacts/TARGET: fix the fault and add the input to the corpus.

exit status: 0 no fault found, 1 a target found a fault or did not build, 64 wrong usage,
             69 a requirement is missing
HELP
}

if [ $# -gt 1 ]; then
    warn "$program: too many arguments; see: sh deploy/fuzz.sh --help"
    exit 64
fi
case ${1:-$seconds} in
    --help | -h) usage; exit 0 ;;
    '' | 0* | *[!0-9]* | ????????*)
        warn "$program: not a number of seconds: $1; see: sh deploy/fuzz.sh --help"
        exit 64
        ;;
    *) seconds=${1:-$seconds} ;;
esac

missing=0
need() {
    warn "$program: $1"
    missing=1
}
cargo +nightly --version >/dev/null 2>&1 ||
    need "nightly Rust is missing: rustup toolchain install nightly --profile minimal"
cargo fuzz --version >/dev/null 2>&1 ||
    need "cargo-fuzz is missing: cargo install cargo-fuzz --locked"
have c++ || need "a C++ compiler is missing: on Debian, apt-get install g++"
[ "$missing" -eq 0 ] || exit 69

# The targets of a package, from its manifest. Argument: the directory.
targets() {
    sed -n '/^\[\[bin\]\]/,$s/^name = "\(.*\)"$/\1/p' "$1/Cargo.toml"
}

export CARGO_TARGET_DIR="$root/target/fuzz"
for package in proto probe aggregator; do
    directory=$root/$package/fuzz
    cd "$directory"
    for target in $(targets "$directory"); do
        say "==> $package: $target"
        learnt=$root/target/fuzz-corpus/$package/$target
        mkdir -p "$learnt"
        cargo +nightly fuzz run --fuzz-dir "$directory" --target-dir "$CARGO_TARGET_DIR" \
            "$target" "$learnt" "$directory/corpus/$target" -- \
            -max_total_time="$seconds" -timeout="$input_s_max" -rss_limit_mb="$memory_mib_max" \
            -print_final_stats=1 </dev/null ||
            die "target $target of $package found a fault or did not build; see above"
    done
done
say "All targets ran for $seconds s each."
