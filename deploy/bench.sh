#!/bin/sh
# The figures of this program, each measured in this run. See --help and FIGURES.md.
#
# POSIX sh, because /bin/sh on Debian is dash.
set -eu

program=bench.sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
# shellcheck source=deploy/lib/common.sh
. "$here/lib/common.sh"

usage() {
    cat <<'HELP'
Builds Golem Uptime for release and measures what it costs.

usage: sh deploy/bench.sh [NAME...] [--quick] [--full]

  NAME      only this figure; repeatable (an unknown name prints the list)
  --quick   a smoke run: short, and without the figures that cannot be had shortly
  --full    the long ones too, in the size they are meant for
  --help    this text

Some names bring several figures: detect_down_p99 also detect_down_median, probe_memory also
probe_cpu_per_round, spool_35_days also spool_drain and spool_drain_35_days.

Standard output gets lines of two kinds, and nothing else:
  figure NAME VALUE UNIT
  ratio NAME VALUE PEER     ours over the peer's, same work, same run
Progress goes to standard error. What each figure is stands in deploy/FIGURES.md. The machine should
have nothing else to do.

exit status: 0 measured, 1 something failed or came out wrong, 64 wrong usage
HELP
}

for argument in "$@"; do
    case $argument in
        --help | -h) usage; exit 0 ;;
        --quick | --full) ;;
        -*)
            warn "$program: unknown argument: $argument"
            warn "see: sh deploy/bench.sh --help"
            exit 64
            ;;
    esac
done

private=$(mktemp -d "${TMPDIR:-/tmp}/golem-uptime-bench.XXXXXX") || die "mktemp failed"
# Read by apt_install in lib/common.sh.
# shellcheck disable=SC2034
apt_log=$private/apt.log
trap 'rm -rf "$private"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# It takes further packages as arguments; none are needed.
# shellcheck disable=SC2119
ensure_packages >&2
ensure_rust >&2
cd "$root"
# What is measured is what is shipped.
cargo build --release --locked --bin uptime-aggregator --bin uptime-standin </dev/null >&2 ||
    die "the build failed; see above"
cargo build --profile small --locked --bin uptime-probe </dev/null >&2 ||
    die "the build failed; see above"
cargo bench --locked -p uptime-testkit --bench figures --no-run </dev/null >&2 ||
    die "the build failed; see above"
warn "load before the first figure: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) processors"
status=0
cargo bench --quiet --locked -p uptime-testkit --bench figures -- "$@" </dev/null || status=$?
warn "load after the last figure: $(cut -d' ' -f1-3 /proc/loadavg)"
exit "$status"
