#!/bin/sh
# Checks a nodes_status.csv: sh check_csv.sh [--providers FILE --rounds-max N] CSV
#
# Without --providers it checks the canonical form. With --providers, FILE is the output of
# `fake-yagna --list` (lines `provider ID SUBNET alive|dead`), and the CSV must have a row for each
# provider: living ones were always up, dead ones are `False`.
# Prints a summary and exits 0, or prints the faults and exits 1. Exits 64 on wrong usage.
set -eu
# Bytes, not letters: sorting and ranges must not depend on the locale.
LC_ALL=C
export LC_ALL

providers=
rounds_max=0
while [ $# -gt 1 ]; do
    case $1 in
        --providers) providers=$2; shift 2 ;;
        --rounds-max) rounds_max=$2; shift 2 ;;
        *) break ;;
    esac
done
if [ $# -ne 1 ]; then
    echo "usage: check_csv.sh [--providers FILE --rounds-max N] CSV" >&2
    exit 64
fi
# awk reads a relative name with "=" in it as an assignment.
absolute() {
    case $1 in
        /*) printf '%s' "$1" ;;
        *) printf './%s' "$1" ;;
    esac
}
csv=$(absolute "$1")
[ -z "$providers" ] || providers=$(absolute "$providers")

wrong() {
    echo "the CSV is wrong: $*" >&2
    exit 1
}

[ -f "$csv" ] || wrong "$csv does not exist"
[ -s "$csv" ] || wrong "$csv is empty"
[ "$(tail -c 1 "$csv" | od -An -tx1 | tr -d ' \n')" = 0a ] ||
    wrong "the last line does not end with a newline; the file may be incomplete"
[ "$(tr -dc '\r' <"$csv" | wc -c)" -eq 0 ] || wrong "it has carriage returns; end lines with LF"
if [ -n "$providers" ]; then
    grep -q '^provider ' "$providers" || wrong "$providers names no provider to compare with"
fi

# File names are passed as ARGV: -v would interpret backslashes.
ROUNDS_MAX=$rounds_max PROVIDERS=$providers awk '
function fault(text) {
    faults++
    # A wrong file often has a fault in every row.
    if (faults <= 10) print "the CSV is wrong: " text > "/dev/stderr"
}
function lower_hex_id(id) {
    return length(id) == 42 && id ~ /^0x[0-9a-f]*$/
}
function stamp(text) {
    return length(text) == 32 && \
        text ~ /^[0-9]+-[0-9]+-[0-9]+T[0-9]+:[0-9]+:[0-9]+\.[0-9]+\+00:00$/
}
BEGIN {
    FS = ","
    with_providers = ENVIRON["PROVIDERS"] != ""
    rounds_max = ENVIRON["ROUNDS_MAX"] + 0
}
with_providers && FILENAME == ARGV[1] {
    split($0, word, " ")
    if (word[1] == "provider") state[word[2]] = word[4]
    next
}
FNR == 1 {
    if ($0 != "issuer_id,is_online,last_seen,total_online_scans,uptime")
        fault("the header is \"" $0 "\"")
    next
}
{
    row = "row " (FNR - 1) " (" $1 ")"
    rows++
    seen[$1] = 1
    if (NF != 5) { fault(row " has " NF " columns, not 5"); next }
    if (!lower_hex_id($1)) fault(row ": the id is not 0x and 40 lower-case hex digits")
    if (rows > 1 && !($1 "" > before ""))
        fault(row " follows " before ": rows are not sorted, or one is repeated")
    before = $1
    if ($2 == "True") online++
    else if ($2 == "False") offline++
    else fault(row ": is_online is \"" $2 "\"")
    if ($3 != "" && !stamp($3)) fault(row ": last_seen is \"" $3 "\"")
    if ($4 !~ /^[0-9]+$/) fault(row ": total_online_scans is \"" $4 "\"")
    if ($5 !~ /^[0-9]+\.[0-9]+$/ || $5 + 0 > 100) fault(row ": uptime is \"" $5 "\"")
    if (rounds_max > 0 && $4 + 0 > rounds_max)
        fault(row ": up in " $4 " rounds; at most " rounds_max " are possible")
    if (with_providers) {
        if (!($1 in state)) fault(row " is not a provider of the network")
        else if (state[$1] == "dead") {
            if ($2 != "False") fault(row ": a dead provider is shown as " $2)
            if ($4 != "0" || $3 != "" || $5 != "0.0")
                fault(row ": a dead provider was seen: " $0)
        } else {
            if ($2 != "True") fault(row ": a living provider is shown as " $2)
            if ($4 + 0 < 1 || $3 == "") fault(row ": a living provider was never seen: " $0)
            # Less than 100 means that it was down in a round.
            if ($5 != "100.0") fault(row ": a living provider was down: uptime " $5)
        }
    }
}
END {
    for (id in state) if (!(id in seen)) fault("provider " id " (" state[id] ") has no row")
    if (faults > 10) print "... and " (faults - 10) " more" > "/dev/stderr"
    if (faults) exit 1
    printf "%d rows, %d True, %d False\n", rows, online, offline
}' ${providers:+"$providers"} "$csv"
