#!/bin/sh
# From a fresh clone to a growing nodes_status.csv in one command. See --help.
#
# POSIX sh, because /bin/sh on Debian is dash. It installs missing requirements, builds the binaries
# and runs an aggregator and its probes as child processes. They stop when this script stops.
set -eu

program=quickstart.sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
# shellcheck source=deploy/lib/common.sh
. "$here/lib/common.sh"

# The demonstration. A direct question is asked twice, with a limit of 4 s each, so a shorter round
# cannot find a dead provider.
demo_period_s=10
demo_providers=300
demo_daemons=3
real_period_s=30
grace_s=5

usage() {
    cat <<'HELP'
Builds Golem Uptime, starts an aggregator and probes, and shows nodes_status.csv growing.

usage: sh deploy/quickstart.sh [--rounds N] [--period-s S] [--dir DIR] [--keep]

With YAGNA_APPKEY in the environment: one probe scans the real Golem network through the yagna
daemon at YAGNA_API_URL (default http://127.0.0.1:7465), in the subnets of UPTIME_SUBNET_TAG
(separated by commas; default public).
Without: three probes scan a fake network on this machine, NOT Golem: 3 daemons that see
different parts of it, and 300 providers in the subnets public and testnet. Three providers are
dead but still have offers on the market (a process that died, a host that is gone, a frozen
process). One daemon freezes half way through.

  --rounds N     stop after N closed rounds and check the CSV [default: run until Ctrl-C]
  --period-s S   length of a round in seconds; must divide 86400 [default: 10 in the
                 demonstration, which is also the minimum there; 30 with a real yagna]
  --dir DIR      directory for all files [default: a new directory in ${TMPDIR:-/tmp}]; it is
                 created if missing, and must be empty or made by an earlier quickstart
  --keep         also keep the store, the spools and the logs, in run/ beside the CSV
  --help         show this text

On Debian and Ubuntu, the script installs missing requirements: curl, ca-certificates and gcc with
apt-get (as root or with sudo), Rust with the rustup installer. It serves gRPC on 127.0.0.1:7640
and HTTP on 127.0.0.1:7641, or on free ports if these are in use. At the end it stops all its
processes and removes all files except the CSV. The last line shows its path: `csv: PATH`.

exit status: 0    success: stopped with Ctrl-C, or with --rounds: the CSV is correct
             1    something failed, or the CSV is wrong; see standard error
             64   wrong usage
             129, 130, 143   stopped by SIGHUP, SIGINT or SIGTERM before the end
HELP
}

wrong_usage() {
    warn "$program: $*"
    warn "see: sh deploy/quickstart.sh --help"
    exit 64
}

# Whether this is a whole number without a leading zero (the shell reads those as octal).
is_number() {
    case $1 in
        '' | 0* | *[!0-9]*) return 1 ;;
        *) [ ${#1} -le 6 ] ;;
    esac
}

rounds=
period_s=
directory=
keep=
while [ $# -gt 0 ]; do
    case $1 in
        --rounds | --period-s | --dir)
            [ -n "${2:-}" ] || wrong_usage "$1 needs a value"
            case $1 in
                --rounds) rounds=$2 ;;
                --period-s) period_s=$2 ;;
                --dir) directory=$2 ;;
            esac
            shift 2
            ;;
        --keep) keep=yes; shift ;;
        --help | -h) usage; exit 0 ;;
        *) wrong_usage "unknown argument: $1" ;;
    esac
done
[ -z "$rounds" ] || is_number "$rounds" || wrong_usage "--rounds must be a number of at least 1"
if [ -n "${YAGNA_APPKEY:-}" ]; then
    demo=
    : "${period_s:=$real_period_s}"
    export YAGNA_APPKEY
else
    demo=yes
    : "${period_s:=$demo_period_s}"
fi
if ! is_number "$period_s" || [ "$period_s" -gt 86400 ] || [ $((86400 % period_s)) -ne 0 ]; then
    wrong_usage "--period-s must be a number of seconds that divides 86400"
fi
if [ -n "$demo" ] && [ "$period_s" -lt "$demo_period_s" ]; then
    wrong_usage "--period-s must be at least $demo_period_s: a provider that does not answer is" \
        "asked twice, 4 s each"
fi

subnets=${UPTIME_SUBNET_TAG:-public}
yagna_url=${YAGNA_API_URL:-http://127.0.0.1:7465}
# The binaries read UPTIME_… variables. Settings for another aggregator or probe on this machine
# must not reach them: for example, a token in the environment overrides --token-file.
for name in $(env | sed -n 's/^\(UPTIME_[A-Z_]*\)=.*/\1/p'); do
    case $name in
        UPTIME_LOG) ;;
        *) unset "$name" ;;
    esac
done

# ---- Stopping ----------------------------------------------------------------------------------

private=$(mktemp -d "${TMPDIR:-/tmp}/golem-uptime-private.XXXXXX") || die "mktemp failed"
# Read by apt_install.
# shellcheck disable=SC2034
apt_log=$private/apt.log
work=
run_dir=
aggregator=
fake_yagna=
probes=
finishing=

on_exit() {
    status=$?
    # Ignore signals from here on: a second Ctrl-C would leave processes behind.
    trap '' HUP INT TERM
    trap - EXIT
    set +e
    # Probes first, while the aggregator still accepts their parts.
    # Splitting is intended: lists of process ids.
    # shellcheck disable=SC2086
    end_children 30 $probes
    # shellcheck disable=SC2086
    end_children 120 $aggregator
    # shellcheck disable=SC2086
    end_children 30 $fake_yagna
    rm -rf "$private"
    if [ -n "$run_dir" ] && [ -z "$keep" ]; then
        rm -rf "$run_dir"
    fi
    if [ -n "$work" ]; then
        if [ -f "$work/nodes_status.csv" ]; then
            say "csv: $work/nodes_status.csv"
        elif [ -z "$directory" ] && [ -z "$keep" ]; then
            rmdir "$work" 2>/dev/null
        fi
    fi
    exit "$status"
}

# Without --rounds, Ctrl-C is the normal way to stop.
on_signal() {
    if [ "$1" -eq 130 ] && [ -n "$finishing" ] && [ -z "$rounds" ]; then
        say ""
        exit 0
    fi
    exit "$1"
}
trap on_exit EXIT
trap 'on_signal 129' HUP
trap 'on_signal 130' INT
trap 'on_signal 143' TERM

# Prints a message and the last lines of a log, and exits.
fail_with_log() {
    log=$1
    shift
    warn "$program: $*"
    if [ -s "$log" ]; then
        warn "the last lines of $(basename "$log"):"
        tail -n 15 "$log" | sed 's/^/    /' >&2
    fi
    exit 1
}

# ---- Requirements and build --------------------------------------------------------------------

started_s=$(date +%s)
ensure_packages
ensure_rust
cd "$root"
set -- --bin uptime-aggregator --bin uptime-probe
[ -z "$demo" ] || set -- "$@" --bin fake-yagna
say "Building (cargo build --release); the first build takes some minutes"
cargo build --release --locked "$@" </dev/null || die "the build failed; see above"
bin=$(cargo_target_dir)/release
[ -x "$bin/uptime-aggregator" ] || die "the build did not create $bin/uptime-aggregator"
say "Built in $(($(date +%s) - started_s)) s"

# ---- Directories -------------------------------------------------------------------------------

marker_text="Made by quickstart.sh. Each run replaces nodes_status.csv in this directory."
if [ -z "$directory" ]; then
    work=$(mktemp -d "${TMPDIR:-/tmp}/golem-uptime.XXXXXX") || die "mktemp failed"
else
    mkdir -p -- "$directory" || die "cannot create $directory"
    claimed=$(CDPATH='' cd -- "$directory" && pwd) || die "cannot enter $directory"
    # Do not overwrite a nodes_status.csv from somewhere else.
    if [ ! -f "$claimed/quickstart.txt" ] && [ -n "$(ls -A "$claimed")" ]; then
        die "$claimed is not empty and was not made by a quickstart; choose another --dir"
    fi
    # mkdir is atomic: of two runs at the same time, only one creates the directory.
    mkdir "$claimed/run" 2>/dev/null ||
        die "$claimed/run exists: another quickstart runs, or an earlier one had --keep;" \
            "remove it or choose another --dir"
    work=$claimed
    say "$marker_text" >"$work/quickstart.txt"
    rm -f "$work/nodes_status.csv"
fi
run_dir=$work/run
# Private; the CSV beside it has the normal permissions.
mkdir -p "$run_dir"
chmod 700 "$run_dir"
mkdir "$run_dir/logs"
logs=$run_dir/logs
csv=$work/nodes_status.csv

# ---- The aggregator ----------------------------------------------------------------------------

# Waits until a condition holds. Fails if a process ends or the time is over.
# Arguments: seconds, process id, a command.
wait_for() {
    deadline_s=$(($(date +%s) + $1))
    watched=$2
    shift 2
    until "$@"; do
        running "$watched" || return 1
        [ "$(date +%s)" -lt "$deadline_s" ] || return 1
        sleep 0.1
    done
}

announced() { [ "$(grep -c '^csv ' "$logs/aggregator.out")" -eq 1 ]; }

serving_s=$(date +%s)
grpc_addr=127.0.0.1:7640
http_addr=127.0.0.1:7641
tries=0
while :; do
    : >"$logs/aggregator.out"
    "$bin/uptime-aggregator" serve --data-dir "$run_dir/data" --csv "$csv" \
        --grpc-addr "$grpc_addr" --http-addr "$http_addr" \
        --round-period-s "$period_s" --grace-s "$grace_s" \
        >"$logs/aggregator.out" 2>"$logs/aggregator.log" </dev/null &
    aggregator=$!
    if wait_for 30 "$aggregator" announced; then break; fi
    end_children 20 "$aggregator"
    aggregator=
    # Only binding shows whether a port is free. With port 0 the system chooses one.
    tries=$((tries + 1))
    if [ "$tries" -le 2 ] && grep -q "cannot bind $grpc_addr" "$logs/aggregator.log"; then
        grpc_addr=127.0.0.1:0
    elif [ "$tries" -le 2 ] && grep -q "cannot bind $http_addr" "$logs/aggregator.log"; then
        http_addr=127.0.0.1:0
    else
        fail_with_log "$logs/aggregator.log" "the aggregator did not start"
    fi
done
grpc_addr=$(sed -n 's/^grpc //p' "$logs/aggregator.out")
http_addr=$(sed -n 's/^http //p' "$logs/aggregator.out")

# A proxy from the environment must not be used for loopback.
fetch() { curl -sS --noproxy '*' --max-time 5 "$@" 2>/dev/null; }

# Prints the value of a metric of the aggregator, rounded; nothing if there is none.
metric() { awk -v name="$1" '$1 == name { printf "%.0f", $2 }' "$private/metrics"; }

read_metrics() { fetch -o "$private/metrics" "http://$http_addr/metrics"; }

# ---- The fake network ---------------------------------------------------------------------------

# The start of the first round that counts. It moves back until the probes are connected.
first_s=0

# Prints the start of the next round after a time.
round_after() { echo $((($1 / period_s + 1) * period_s)); }

network_there() { [ -f "$private/network" ]; }

if [ -n "$demo" ]; then
    freezing=$((demo_daemons - 1))
    # Half way: after half of the rounds (at least one), or after about a minute, in the middle of
    # a round: the last questions of the round before are answered then, and new ones begin.
    # Connecting the probes takes a second, so 4 s is enough.
    half=$(((${rounds:-$((120 / period_s))} + 1) / 2))
    [ "$half" -ge 1 ] || half=1
    now_s=$(date +%s)
    first_s=$(round_after $((now_s + 4)))
    freeze_after_s=$((first_s - now_s + half * period_s + period_s / 2))
    (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$private/fake-yagna.key")
    "$bin/fake-yagna" --daemons "$demo_daemons" --providers "$demo_providers" \
        --subnet public --subnet testnet --app-key-file "$private/fake-yagna.key" \
        --freeze-daemon "$freezing" --freeze-after-s "$freeze_after_s" \
        --list --announce "$private/network" \
        >/dev/null 2>"$logs/fake-yagna.log" </dev/null &
    fake_yagna=$!
    wait_for 30 "$fake_yagna" network_there ||
        fail_with_log "$logs/fake-yagna.log" "the fake network did not start"
    # Lines `dead ID HOW`.
    dead=$(sed -n 's/^dead \([^ ]*\) .*/\1/p' "$private/network")
    dead_count=$(echo "$dead" | wc -l)
    say ""
    say "No YAGNA_APPKEY is set, so this scans a fake network on this machine, NOT Golem:"
    say "  $demo_daemons daemons see different parts of it. It has $demo_providers providers in" \
        "the subnets public and testnet."
    say "  $dead_count providers are dead but still have offers on the market:"
    sed -n 's/^dead \([^ ]*\) \(.*\)/    \1 \2/p' "$private/network"
    say "  Daemon $((freezing + 1)) freezes in about $freeze_after_s s. No node may be down" \
        "because of it."
    say "For the real network: YAGNA_APPKEY=... sh deploy/quickstart.sh"
fi

# ---- The probes --------------------------------------------------------------------------------

# Enrols a probe. Its token is written to a private file, never passed in argv.
enrol() {
    (umask 077 && exec "$bin/uptime-aggregator" probe add --data-dir "$run_dir/data" "$1" \
        >"$private/$1.token" 2>"$logs/enrol-$1.log" </dev/null) ||
        fail_with_log "$logs/enrol-$1.log" "cannot enrol the probe $1"
}

# Replaces this process with a probe command: call it in the background or in a subshell.
# Arguments: name, command, more arguments.
probe() {
    probe_name=$1
    probe_command=$2
    shift 2
    exec "$bin/uptime-probe" "$probe_command" --aggregator "http://$grpc_addr" \
        --token-file "$private/$probe_name.token" --spool-dir "$run_dir/spool-$probe_name" "$@"
}

# Arguments: name, subnets, yagna's address, the file with the application key (if it is not in the
# environment).
start_probe() {
    probe "$1" run --subnet-tag "$2" --yagna-url "$3" ${4:+--app-key-file "$4"} \
        >"$logs/$1.log" 2>&1 </dev/null &
    probes="$probes $!"
}

if [ -n "$demo" ]; then
    index=0
    while [ "$index" -lt "$demo_daemons" ]; do
        url=$(sed -n "s/^daemon $index //p" "$private/network")
        enrol "probe-$((index + 1))"
        start_probe "probe-$((index + 1))" public,testnet "$url" "$private/fake-yagna.key"
        index=$((index + 1))
    done
else
    say ""
    say "Scanning the real network through yagna at $yagna_url, subnets: $subnets"
    enrol probe-1
    (probe probe-1 check --subnet-tag "$subnets" --yagna-url "$yagna_url") \
        >"$private/check" 2>&1 </dev/null && checked=0 || checked=$?
    cat "$private/check"
    if [ "$checked" -ne 0 ]; then
        # A daemon that has just started has no relay session and no offers yet, but soon will.
        if grep '^WRONG' "$private/check" | grep -v -q -E '^WRONG +(relay|market) ' ||
            ! grep -q '^WRONG' "$private/check"; then
            die "the probe cannot work; fix the faults marked WRONG above and start again"
        fi
        say "Continuing: a daemon that has just started needs some minutes for this."
    fi
    start_probe probe-1 "$subnets" "$yagna_url"
fi
probe_count=$(printf '%s\n' "$probes" | wc -w)

# Exits if a child process has ended.
all_running() {
    running "$aggregator" || fail_with_log "$logs/aggregator.log" "the aggregator ended"
    [ -z "$demo" ] || running "$fake_yagna" ||
        fail_with_log "$logs/fake-yagna.log" "the fake network ended"
    at=0
    for child in $probes; do
        at=$((at + 1))
        running "$child" || fail_with_log "$logs/probe-$at.log" "probe-$at ended"
    done
}

probes_connected() {
    all_running
    read_metrics && [ "$(metric uptime_ingest_streams)" = "$probe_count" ]
}
wait_for 30 "$aggregator" probes_connected ||
    fail_with_log "$logs/probe-1.log" "not all $probe_count probes connected within 30 s"

# ---- Rounds ------------------------------------------------------------------------------------

# A round counts if it began after the probes connected. The current round does not.
connected_s=$(round_after "$(date +%s)")
[ "$first_s" -ge "$connected_s" ] || first_s=$connected_s

say ""
say "status page: http://$http_addr/"
say "csv now at:  $csv"
say "Rounds last $period_s s and close at most $grace_s s after their end. The first closes in" \
    "about $((first_s + period_s + grace_s - $(date +%s))) s."
if [ -n "$rounds" ]; then
    say "Stopping after $rounds closed rounds."
else
    say "Press Ctrl-C to stop."
fi
say ""
finishing=yes

show_csv() {
    say ""
    say "The CSV begins:"
    head -n 4 "$csv" | sed 's/^/    /'
    if [ -n "$demo" ]; then
        say "The rows of the dead providers:"
        # Ids have no spaces: one word each.
        for id in $dead; do
            # An early CSV may not have all of them.
            grep "^$id," "$csv" | sed 's/^/    /'
        done
    fi
    say ""
}

# Reports once that the daemon has frozen: it accepts a connection and does not answer.
frozen=
look_for_freeze() {
    if [ -z "$demo" ] || [ -n "$frozen" ]; then return 0; fi
    url=$(sed -n "s/^daemon $freezing //p" "$private/network")
    answer=0
    curl -s --noproxy '*' --max-time 1 -o /dev/null "$url/version/get" || answer=$?
    # 28: timed out.
    if [ "$answer" -eq 28 ]; then
        frozen=yes
        say "          daemon $((freezing + 1)) has frozen: it accepts connections and never" \
            "answers; probe-$((freezing + 1)) reports that it could not look"
    fi
}

# The CSV includes a closed round if it was written after the end of the round. File times come from
# the coarse clock of the kernel, which is some milliseconds behind: allow one second.
csv_written() { [ "$(stat -c %Y "$csv")" -ge $((closed_s + period_s - 1)) ]; }

daemon_froze() {
    look_for_freeze
    [ -n "$frozen" ]
}

closed=0
last_s=0
shown=
too_many_down=
dead_found=
deadline_s=$((first_s + 2 * period_s + grace_s + 15))
printf '%-9s %6s %6s %8s %9s\n' round up down unknown 'csv rows'
while [ -z "$rounds" ] || [ "$closed" -lt "$rounds" ]; do
    sleep 0.5
    all_running
    if read_metrics; then
        closed_s=$(metric uptime_ledger_last_closed_round_seconds)
        if [ "${closed_s:-0}" -ge "$first_s" ] && [ "$closed_s" -gt "$last_s" ]; then
            last_s=$closed_s
            closed=$((closed + 1))
            up=$(metric 'uptime_ledger_nodes{verdict="up"}')
            down=$(metric 'uptime_ledger_nodes{verdict="down"}')
            unknown=$(metric 'uptime_ledger_nodes{verdict="unknown"}')
            wait_for 10 "$aggregator" csv_written ||
                fail_with_log "$logs/aggregator.log" "a round closed, but no CSV was written"
            rows=$(($(wc -l <"$csv") - 1))
            look_for_freeze
            printf '%-9s %6s %6s %8s %9s\n' "$(date -u -d "@$closed_s" +%H:%M:%S)" \
                "$up" "$down" "$unknown" "$rows"
            if [ -n "$demo" ]; then
                [ "$down" -lt "$dead_count" ] || dead_found=yes
                [ "$down" -le "$dead_count" ] ||
                    too_many_down="$down nodes were down in one round"
            fi
            if [ -z "$shown" ] && [ "$rows" -gt 0 ]; then
                shown=yes
                show_csv
            fi
            deadline_s=$((closed_s + 3 * period_s + grace_s + 15))
        fi
    fi
    [ "$(date +%s)" -lt "$deadline_s" ] ||
        fail_with_log "$logs/aggregator.log" "no round closed in time"
done

# ---- With --rounds: check the result -----------------------------------------------------------

# The file is complete when the aggregator has ended.
# Splitting is intended: a list of process ids.
# shellcheck disable=SC2086
end_children 50 $probes
probes=
end_children 120 "$aggregator"
aggregator=

say ""
if [ -z "$demo" ]; then
    sh "$here/lib/check_csv.sh" "$csv" >"$private/checked" || die "see above"
    # A table without rows is well formed but useless.
    [ "$(wc -l <"$csv")" -gt 1 ] ||
        fail_with_log "$logs/probe-1.log" "no provider was found in $closed rounds"
else
    # Rounds since the aggregator started, including incomplete ones at both ends.
    rounds_max=$((($(date +%s) - serving_s) / period_s + 2))
    sh "$here/lib/check_csv.sh" --providers "$private/network" --rounds-max "$rounds_max" "$csv" \
        >"$private/checked" || die "the result of the demonstration is wrong, see above"
    [ -z "$too_many_down" ] || die "$too_many_down, but only $dead_count providers are dead"
    [ -n "$dead_found" ] || die "the $dead_count dead providers were never all down in one round"
    wait_for "$period_s" "$fake_yagna" daemon_froze ||
        die "daemon $((freezing + 1)) did not freeze half way"
fi
say "The CSV is correct after $closed closed rounds: $(cat "$private/checked")."
