#!/bin/sh
# From a fresh clone to a growing nodes_status.csv in one command. See --help.
#
# POSIX sh, because /bin/sh on Debian is dash. The order: what is missing gets installed, the
# binaries are built, an aggregator and its probes run as children of this script, and whichever
# way it ends it takes them with it.
set -eu

program=quickstart.sh
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$here")
# shellcheck source=deploy/lib/common.sh
. "$here/lib/common.sh"

# The demonstration. A direct question is asked twice with a limit of 4 s each, so a shorter round
# could not find out that a provider is dead.
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
different parts of it, 300 providers in the subnets public and testnet, three of them dead though
their offers live on (one's process died, one's host is gone, one is frozen), and one daemon that
freezes half way.

  --rounds N     stop after N closed rounds and check that the CSV is right (default: go on until
                 Ctrl-C)
  --period-s S   length of a round; divides 86400 (default: 10 in the demonstration, which is also
                 its least; 30 with a real yagna)
  --dir DIR      put everything there (default: a fresh directory under ${TMPDIR:-/tmp}); created
                 if missing, else it must be empty or of an earlier quickstart
  --keep         keep the store, the spools and the logs too, in run/ beside the CSV
  --help         this text

What is missing on a Debian or Ubuntu machine is installed: curl, ca-certificates and gcc by
apt-get (as root or with sudo), Rust by rustup's own installer. gRPC is served on 127.0.0.1:7640
and HTTP on 127.0.0.1:7641, or on free ports where these are taken. At the end no process is left
and everything is removed but the CSV; its path is the last line printed: `csv: PATH`.

exit status: 0    done: stopped with Ctrl-C; with --rounds: the CSV is there and right
             1    something failed, or the CSV is wrong; standard error says what
             64   wrong usage
             129, 130, 143   ended by SIGHUP, SIGINT or SIGTERM before its work was done
HELP
}

wrong_usage() {
    warn "$program: $*"
    warn "see: sh deploy/quickstart.sh --help"
    exit 64
}

# A whole number without a leading zero, which the shell would read as octal.
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
            [ -n "${2:-}" ] || wrong_usage "$1 wants a value"
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
[ -z "$rounds" ] || is_number "$rounds" || wrong_usage "--rounds: a number from 1 is wanted"
if [ -n "${YAGNA_APPKEY:-}" ]; then
    demo=
    : "${period_s:=$real_period_s}"
    export YAGNA_APPKEY
else
    demo=yes
    : "${period_s:=$demo_period_s}"
fi
if ! is_number "$period_s" || [ "$period_s" -gt 86400 ] || [ $((86400 % period_s)) -ne 0 ]; then
    wrong_usage "--period-s: a number of seconds that divides 86400 is wanted"
fi
if [ -n "$demo" ] && [ "$period_s" -lt "$demo_period_s" ]; then
    wrong_usage "--period-s: $demo_period_s s is the least: a provider that does not answer is" \
        "asked twice, 4 s each"
fi

subnets=${UPTIME_SUBNET_TAG:-public}
yagna_url=${YAGNA_API_URL:-http://127.0.0.1:7465}
# The binaries read UPTIME_… themselves. What is set for another aggregator or probe on this
# machine must not reach these: a token in the environment, say, outranks --token-file.
for name in $(env | sed -n 's/^\(UPTIME_[A-Z_]*\)=.*/\1/p'); do
    case $name in
        UPTIME_LOG) ;;
        *) unset "$name" ;;
    esac
done

# ---- How it ends -------------------------------------------------------------------------------

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
    # From here on nothing interrupts, or a second Ctrl-C would leave processes behind.
    trap '' HUP INT TERM
    trap - EXIT
    set +e
    # Probes first, while the aggregator still takes what they hold.
    # Meant to be split: lists of process ids.
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

# Without --rounds, Ctrl-C is how it is meant to end once it runs.
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

# Says what failed, with the end of the log that tells why.
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

# ---- What is needed, and the build -------------------------------------------------------------

started_s=$(date +%s)
ensure_packages
ensure_rust
cd "$root"
set -- --bin uptime-aggregator --bin uptime-probe
[ -z "$demo" ] || set -- "$@" --bin fake-yagna
say "Building (cargo build --release); the first time this takes some minutes"
cargo build --release --locked "$@" </dev/null || die "the build failed; see above"
bin=$(cargo_target_dir)/release
[ -x "$bin/uptime-aggregator" ] || die "$bin/uptime-aggregator is not where the build should put it"
say "Built in $(($(date +%s) - started_s)) s"

# ---- Where things go ---------------------------------------------------------------------------

marker_text="Made by quickstart.sh, which writes nodes_status.csv here anew every time."
if [ -z "$directory" ]; then
    work=$(mktemp -d "${TMPDIR:-/tmp}/golem-uptime.XXXXXX") || die "mktemp failed"
else
    mkdir -p -- "$directory" || die "cannot make $directory"
    claimed=$(CDPATH='' cd -- "$directory" && pwd) || die "cannot enter $directory"
    # Somebody's own nodes_status.csv must not be written over.
    if [ ! -f "$claimed/quickstart.txt" ] && [ -n "$(ls -A "$claimed")" ]; then
        die "$claimed is not empty and not of an earlier quickstart; choose another --dir"
    fi
    # One attempt decides: of two at the same time, only one makes the directory.
    mkdir "$claimed/run" 2>/dev/null ||
        die "$claimed/run is there: another quickstart runs, or one was told to --keep;" \
            "remove it or choose another --dir"
    work=$claimed
    say "$marker_text" >"$work/quickstart.txt"
    rm -f "$work/nodes_status.csv"
fi
run_dir=$work/run
# Nobody else's business; the CSV beside it is as readable as this user's files are.
mkdir -p "$run_dir"
chmod 700 "$run_dir"
mkdir "$run_dir/logs"
logs=$run_dir/logs
csv=$work/nodes_status.csv

# ---- The aggregator ----------------------------------------------------------------------------

# Waits until a condition holds, a process ends, or the seconds are over; false then.
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
    # Trying is the only way to know that a port is free; port 0 then lets the system choose.
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

# A proxy set in the environment is not for loopback.
fetch() { curl -sS --noproxy '*' --max-time 5 "$@" 2>/dev/null; }

# The value of a metric of the aggregator, whole; nothing while it has none.
metric() { awk -v name="$1" '$1 == name { printf "%.0f", $2 }' "$private/metrics"; }

read_metrics() { fetch -o "$private/metrics" "http://$http_addr/metrics"; }

# ---- The fake network ---------------------------------------------------------------------------

# The first round counts from here; it may be moved back until the probes are there.
first_s=0

# The start of the next round after an instant.
round_after() { echo $((($1 / period_s + 1) * period_s)); }

network_there() { [ -f "$private/network" ]; }

if [ -n "$demo" ]; then
    freezing=$((demo_daemons - 1))
    # Half way: after half of the rounds, at least one, or after about a minute; and then in the
    # middle of a round, when the last questions of the one before are answered and those of this
    # one begin. Connecting the probes takes a second, so 4 s is plenty.
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
    say "  $demo_daemons daemons that see different parts of it, $demo_providers providers in the" \
        "subnets public and testnet."
    say "  $dead_count providers are dead though their offers live on:"
    sed -n 's/^dead \([^ ]*\) \(.*\)/    \1 \2/p' "$private/network"
    say "  Daemon $((freezing + 1)) freezes in about $freeze_after_s s; nobody may become down by it."
    say "For the real network: YAGNA_APPKEY=... sh deploy/quickstart.sh"
fi

# ---- The probes --------------------------------------------------------------------------------

# Enrols a probe; its token goes into a file that only this user can read, never through argv.
enrol() {
    (umask 077 && exec "$bin/uptime-aggregator" probe add --data-dir "$run_dir/data" "$1" \
        >"$private/$1.token" 2>"$logs/enrol-$1.log" </dev/null) ||
        fail_with_log "$logs/enrol-$1.log" "the probe $1 could not be enrolled"
}

# Becomes a probe command, so call it in the background or in a subshell.
# Arguments: name, command, further arguments.
probe() {
    probe_name=$1
    probe_command=$2
    shift 2
    exec "$bin/uptime-probe" "$probe_command" --aggregator "http://$grpc_addr" \
        --token-file "$private/$probe_name.token" --spool-dir "$run_dir/spool-$probe_name" "$@"
}

# Arguments: name, subnets, yagna's address, the file with the application key if not in the
# environment.
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
        # A daemon that has just started has no relay session and no offers yet: that mends itself.
        if grep '^WRONG' "$private/check" | grep -v -q -E '^WRONG +(relay|market) ' ||
            ! grep -q '^WRONG' "$private/check"; then
            die "the probe cannot work like this; mend what is WRONG above and start again"
        fi
        say "Going on all the same: a daemon that started lately needs some minutes for this."
    fi
    start_probe probe-1 "$subnets" "$yagna_url"
fi
probe_count=$(printf '%s\n' "$probes" | wc -w)

# Fails when a child has ended that should be running.
all_running() {
    running "$aggregator" || fail_with_log "$logs/aggregator.log" "the aggregator ended"
    [ -z "$demo" ] || running "$fake_yagna" ||
        fail_with_log "$logs/fake-yagna.log" "the fake network ended"
    at=0
    for child in $probes; do
        at=$((at + 1))
        running "$child" || fail_with_log "$logs/probe-$at.log" "the probe probe-$at ended"
    done
}

probes_connected() {
    all_running
    read_metrics && [ "$(metric uptime_ingest_streams)" = "$probe_count" ]
}
wait_for 30 "$aggregator" probes_connected ||
    fail_with_log "$logs/probe-1.log" "after 30 s not all of the $probe_count probes are connected"

# ---- Rounds ------------------------------------------------------------------------------------

# A round counts when it began after the probes were there; the one that runs has lost its start.
connected_s=$(round_after "$(date +%s)")
[ "$first_s" -ge "$connected_s" ] || first_s=$connected_s

say ""
say "status page: http://$http_addr/"
say "csv now at:  $csv"
say "Rounds of $period_s s, closed at most $grace_s s after their end; the first is closed in about" \
    "$((first_s + period_s + grace_s - $(date +%s))) s."
if [ -n "$rounds" ]; then
    say "Stops after $rounds closed rounds."
else
    say "Ctrl-C ends it."
fi
say ""
finishing=yes

show_csv() {
    say ""
    say "The CSV begins:"
    head -n 4 "$csv" | sed 's/^/    /'
    if [ -n "$demo" ]; then
        say "and the dead providers' rows are:"
        # Ids have no blanks: one word each.
        for id in $dead; do
            # A young CSV may lack one.
            grep "^$id," "$csv" | sed 's/^/    /'
        done
    fi
    say ""
}

# Tells once that the daemon has frozen, as seen from outside: it connects and does not answer.
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

# The CSV is of a closed round when it was written after the round's end. A file's time is taken from
# the kernel's coarse clock, some milliseconds behind; hence a second of tolerance.
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
                fail_with_log "$logs/aggregator.log" "a round was closed and no CSV written"
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
        fail_with_log "$logs/aggregator.log" "no round was closed for too long"
done

# ---- With --rounds: is it right? ---------------------------------------------------------------

# The file is final when the aggregator is gone.
# Meant to be split: a list of process ids.
# shellcheck disable=SC2086
end_children 50 $probes
probes=
end_children 120 "$aggregator"
aggregator=

say ""
if [ -z "$demo" ]; then
    sh "$here/lib/check_csv.sh" "$csv" >"$private/checked" || die "see above"
    # A table without rows is well formed and still not what anybody wants.
    [ "$(wc -l <"$csv")" -gt 1 ] ||
        fail_with_log "$logs/probe-1.log" "no provider was found in $closed rounds"
else
    # Rounds since the aggregator started, the first and the last cut.
    rounds_max=$((($(date +%s) - serving_s) / period_s + 2))
    sh "$here/lib/check_csv.sh" --providers "$private/network" --rounds-max "$rounds_max" "$csv" \
        >"$private/checked" || die "the demonstration did not come out right, see above"
    [ -z "$too_many_down" ] || die "$too_many_down, and only $dead_count providers are dead"
    [ -n "$dead_found" ] || die "the $dead_count dead providers were never all found down"
    wait_for "$period_s" "$fake_yagna" daemon_froze ||
        die "daemon $((freezing + 1)) should have frozen half way and did not"
fi
say "The CSV is right after $closed closed rounds: $(cat "$private/checked")."
