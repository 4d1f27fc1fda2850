#!/bin/sh
# Measures the figures of this program. See --help and docs/benchmarks.md.
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
Builds Golem Uptime in release mode and measures its figures.

usage: sh deploy/bench.sh [NAME...] [--quick] [--full]

  NAME      measure only this figure; repeatable (an unknown name prints the list)
  --quick   a short smoke run, without the figures that need a long run
  --full    all figures, with the full amount of data
  --help    show this text

Some names measure several figures:
  detect_down_p99 also detect_down_median, detect_refused_p99 and detect_refused_median; the same
  for detect_down_15s_p99 and detect_down_10k_p99
  dead_error_lines also dead_relay_queries
  page_overview also page_overview_sorted
  probe_memory also probe_cpu_per_round
  spool_35_days also spool_drain and spool_drain_35_days
  stored_bytes_200x10 and uptime_all_24h together
  uptime_one_p99, get_node_p99 and query_rate together, with uptime_one_p50, get_node_p50,
  query_rate_uptime and query_rate_empty

ingest_rate, stored_bytes_200x10, uptime_all_24h and, with --full, stored_bytes are compared with
Prometheus, VictoriaMetrics and PostgreSQL, and uptime_one_p99 with VictoriaMetrics. On Debian and
Ubuntu, missing packages are installed (as root or with sudo): prometheus, victoria-metrics,
postgresql. Their services are not started: the programs run on loopback with their own data and
are stopped at the end. With --quick nothing is installed, and missing programs are not compared.

Standard output has only lines of these two forms:
  figure NAME VALUE UNIT
  ratio NAME VALUE PEER     ours divided by the peer's, for the same work in the same run
Progress goes to standard error. docs/benchmarks.md defines each figure. Run this on an idle machine.

exit status: 0 measured, 1 a measurement failed or gave a wrong result, 64 wrong usage
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
# This file tells Debian's packages not to start services. Ours exists only during the installation.
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

# Debian starts installed servers at once and at every boot. Here they run as child processes with
# their own data, so the installed services stay stopped and disabled.
install_peers() {
    missing=
    { have prometheus && have promtool; } || missing="$missing prometheus"
    have victoria-metrics || missing="$missing victoria-metrics"
    has_postgresql || missing="$missing postgresql"
    if [ -z "$missing" ]; then return 0; fi
    # Splitting is intended, here and below: a list of words.
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

# It takes additional packages as arguments; none is needed.
# shellcheck disable=SC2119
ensure_packages >&2
ensure_rust >&2
if [ "$compared" = yes ] && [ "$extent" != quick ]; then
    install_peers >&2
fi
cd "$root"
# Measure the shipped builds.
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
