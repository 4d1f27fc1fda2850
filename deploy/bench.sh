#!/bin/sh
# The figures of this program, each measured in this run. See --help and docs/benchmarks.md.
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

Some names bring several figures: detect_down_p99 also detect_down_median and
detect_refused_p99 and _median, and so do detect_down_15s_p99 and detect_down_10k_p99; dead_error_lines also dead_relay_queries; page_overview also
page_overview_sorted, probe_memory also probe_cpu_per_round, spool_35_days also spool_drain and
spool_drain_35_days, stored_bytes_200x10 and uptime_all_24h each other; uptime_one_p99, get_node_p99
and query_rate each other, uptime_one_p50, get_node_p50, query_rate_uptime and query_rate_empty.

ingest_rate, stored_bytes_200x10, uptime_all_24h and, with --full, stored_bytes are compared with
Prometheus, VictoriaMetrics and PostgreSQL, uptime_one_p99 with VictoriaMetrics alone. On Debian and Ubuntu their packages are installed where
they are missing (as root or with sudo): prometheus, victoria-metrics, postgresql. None of their
services is started; the programs run with data of their own, on loopback, and are ended. With
--quick nothing is installed, and what is not there is not compared with.

Standard output gets lines of two kinds, and nothing else:
  figure NAME VALUE UNIT
  ratio NAME VALUE PEER     ours over the peer's, same work, same run
Progress goes to standard error. What each figure is stands in docs/benchmarks.md. The machine should
have nothing else to do.

exit status: 0 measured, 1 something failed or came out wrong, 64 wrong usage
HELP
}

extent=usual
named=no
compared=no
compared_in_full=no
for argument in "$@"; do
    case $argument in
        --help | -h) usage; exit 0 ;;
        --quick | --full) extent=${argument#--} ;;
        ingest_rate | stored_bytes_200x10 | uptime_all_24h) named=yes compared=yes ;;
        uptime_one_p99 | get_node_p99 | query_rate) named=yes compared=yes ;;
        stored_bytes) named=yes compared_in_full=yes ;;
        -*)
            warn "$program: unknown argument: $argument"
            warn "see: sh deploy/bench.sh --help"
            exit 64
            ;;
        *) named=yes ;;
    esac
done
if [ "$named" = no ] || { [ "$compared_in_full" = yes ] && [ "$extent" = full ]; }; then
    compared=yes
fi

private=$(mktemp -d "${TMPDIR:-/tmp}/golem-uptime-bench.XXXXXX") || die "mktemp failed"
# Read by apt_install in lib/common.sh.
# shellcheck disable=SC2034
apt_log=$private/apt.log
# What tells Debian's packages not to start anything; ours only while they are installed.
policy=/usr/sbin/policy-rc.d
policy_is_ours=no
remove_policy() {
    if [ "$policy_is_ours" = yes ]; then
        $as_root rm -f "$policy"
        policy_is_ours=no
    fi
}
trap 'remove_policy; rm -rf "$private"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

has_postgresql() {
    for program in /usr/lib/postgresql/*/bin/initdb; do
        if [ -x "$program" ]; then return 0; fi
    done
    have initdb && have postgres && have psql
}

# Debian starts the servers that it installs, now and at every boot. Here they are programs that run
# as children, with data of their own, so what is installed for this is left stopped and disabled.
install_peers() {
    missing=
    { have prometheus && have promtool; } || missing="$missing prometheus"
    have victoria-metrics || missing="$missing victoria-metrics"
    has_postgresql || missing="$missing postgresql"
    if [ -z "$missing" ]; then return 0; fi
    # Meant to be split, here and below: a list of words.
    # shellcheck disable=SC2086
    find_root $missing
    if [ ! -e "$policy" ]; then
        policy_is_ours=yes
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    # shellcheck disable=SC2086
    apt_install $missing
    remove_policy
    if [ -d /run/systemd/system ]; then
        # shellcheck disable=SC2086
        $as_root systemctl disable --quiet --now $missing || :
    fi
}

# It takes further packages as arguments; none are needed.
# shellcheck disable=SC2119
ensure_packages >&2
ensure_rust >&2
if [ "$compared" = yes ] && [ "$extent" != quick ]; then
    install_peers >&2
fi
cd "$root"
# What is measured is what is shipped.
cargo build --release --locked --bin uptime-aggregator --bin fake-yagna </dev/null >&2 ||
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
