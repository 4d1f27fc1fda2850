# Shared by quickstart.sh, test.sh and bench.sh, which set `root` to the checkout before they read
# this. POSIX sh. Owns what gets installed on a fresh machine, and how processes are ended.

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# Names the caller, because its output is often read in the middle of a longer log.
die() {
    warn "$program: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Sets `as_root` to what makes a command run as root. A person without root and sudo is told what
# to ask for. Arguments: the packages that are to be installed.
find_root() {
    if ! have apt-get; then
        die "this needs the Debian packages '$*' or what corresponds to them here;" \
            "there is no apt-get to install them with, so install them and start again"
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        # Without a terminal a question for the password would wait for ever.
        if have sudo && [ -t 0 ]; then
            as_root=sudo
        elif have sudo && sudo -n true 2>/dev/null; then
            as_root='sudo -n'
        else
            die "this needs the packages '$*', and neither root nor sudo is at hand;" \
                "as root: apt-get update && apt-get install $*"
        fi
    fi
}

# Installs Debian packages.
apt_install() {
    find_root "$@"
    say "Installing with apt-get: $*"
    # Update first: a fresh image has no package lists, or old ones that name removed files.
    $as_root apt-get update -q >"$apt_log" 2>&1 </dev/null &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends "$@" >>"$apt_log" 2>&1 </dev/null || {
        tail -n 20 "$apt_log" >&2
        die "apt-get could not install $*; its last words are above"
    }
}

# A compiler without the C library's headers is no use to crates that build C, so try one.
cc_works() {
    have cc && printf '#include <stdio.h>\nint main(void){return 0;}\n' |
        cc -x c -o /dev/null - >/dev/null 2>&1
}

# The packages that building needs and this machine lacks, in one apt-get call.
# Arguments: further packages.
ensure_packages() {
    wanted_packages="$*"
    have curl || wanted_packages="$wanted_packages curl"
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ] ||
        [ -d /etc/pki ] || wanted_packages="$wanted_packages ca-certificates"
    cc_works || wanted_packages="$wanted_packages gcc libc6-dev"
    if [ -n "$wanted_packages" ]; then
        # Meant to be split: a list of words.
        # shellcheck disable=SC2086
        apt_install $wanted_packages
    fi
}

# A Rust toolchain as rust-toolchain.toml wants it, and cargo on the PATH.
ensure_rust() {
    channel=$(sed -n 's/^channel *= *"\([^"]*\)".*/\1/p' "$root/rust-toolchain.toml")
    cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
    # rustup may be there though this shell was started before it was.
    case ":$PATH:" in
        *":$cargo_home/bin:"*) ;;
        *) [ ! -x "$cargo_home/bin/cargo" ] || PATH="$cargo_home/bin:$PATH" ;;
    esac
    export PATH
    if ! have rustup && ! rust_is_new_enough; then
        say "Installing Rust $channel through rustup's own installer, into $cargo_home"
        # Downloaded whole before it runs: half a script must not be executed.
        installer=$(curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs) ||
            die "https://sh.rustup.rs could not be fetched; install Rust $channel and start again"
        # A distribution's older Rust may stay: ours comes first on this script's PATH only.
        printf '%s\n' "$installer" | RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -s -- \
            -y --profile minimal --default-toolchain none --no-modify-path ||
            die "rustup's installer failed; its words are above"
        PATH="$cargo_home/bin:$PATH"
        export PATH
    fi
    if have rustup && ! rustup run "$channel" cargo --version >/dev/null 2>&1; then
        # The very version may be there by another name, such as `stable`: no need to fetch it.
        same=$(toolchain_of_version "$channel")
        if [ -n "$same" ]; then
            RUSTUP_TOOLCHAIN=$same
            export RUSTUP_TOOLCHAIN
        else
            say "Installing the Rust toolchain $channel"
            rustup toolchain install "$channel" --profile minimal ||
                die "rustup could not install the toolchain $channel"
        fi
    fi
}

# The name of an installed toolchain with this rustc version; nothing if there is none.
toolchain_of_version() {
    rustup toolchain list | while read -r toolchain _; do
        case $(rustup run "$toolchain" rustc --version 2>/dev/null) in
            "rustc $1 "*) say "$toolchain"; break ;;
        esac
    done
}

# Whether a Rust that came without rustup is as new as Cargo.toml wants.
rust_is_new_enough() {
    have cargo && have rustc || return 1
    needed=$(sed -n 's/^rust-version *= *"1\.\([0-9]*\).*/\1/p' "$root/Cargo.toml")
    there=$(cd "$root" && rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ -n "$there" ] && [ "$there" -ge "${needed:-0}" ]
}

# Where cargo puts its products, which environment and configuration may have moved.
cargo_target_dir() {
    (cd "$root" && cargo metadata --format-version 1 --no-deps --locked) |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Whether a process of ours runs. One that ended stays as a zombie until it is waited for, and
# `kill -0` takes a zombie for a living process.
running() {
    kill -0 "$1" 2>/dev/null || return 1
    ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# Ends child processes: asks them, and after a number of tenths of a second makes them.
# Arguments: tenths, process ids.
end_children() {
    tenths=$1
    shift
    for child in "$@"; do kill -TERM "$child" 2>/dev/null || :; done
    for child in "$@"; do
        while running "$child"; do
            if [ "$tenths" -le 0 ]; then
                kill -KILL "$child" 2>/dev/null || :
                break
            fi
            tenths=$((tenths - 1))
            sleep 0.1
        done
        wait "$child" 2>/dev/null || :
    done
}
