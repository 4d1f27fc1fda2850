# Shared by the scripts in deploy/, which set `root` to the checkout before they read this. POSIX
# sh. Owns what is installed on a new machine, and how processes are stopped.

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }

# Names the calling script, because its output often ends up in a longer log.
die() {
    warn "$program: $*"
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# Sets `as_root` to the prefix that runs a command as root. Without root and sudo it says what to
# install, and exits. Arguments: the packages to install.
find_root() {
    if ! have apt-get; then
        die "the Debian packages '$*' or their equivalents are missing; there is no apt-get:" \
            "install them and start again"
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        # Without a terminal, sudo would wait for a password for ever.
        if have sudo && [ -t 0 ]; then
            as_root=sudo
        elif have sudo && sudo -n true 2>/dev/null; then
            as_root='sudo -n'
        else
            die "the packages '$*' are missing, and installing them needs root or sudo;" \
                "run as root: apt-get update && apt-get install $*"
        fi
    fi
}

# Installs Debian packages.
apt_install() {
    find_root "$@"
    say "Installing with apt-get: $*"
    # Update first: a new image has no package lists, or old ones with removed files.
    $as_root apt-get update -q >"$apt_log" 2>&1 </dev/null &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends "$@" >>"$apt_log" 2>&1 </dev/null || {
        tail -n 20 "$apt_log" >&2
        die "apt-get cannot install $*; its last messages are above"
    }
}

# Crates that build C need the headers of the C library, too: compile a test program.
cc_works() {
    have cc && printf '#include <stdio.h>\nint main(void){return 0;}\n' |
        cc -x c -o /dev/null - >/dev/null 2>&1
}

# Installs missing packages that the build needs, in one apt-get call.
# Arguments: additional packages.
ensure_packages() {
    wanted_packages="$*"
    have curl || wanted_packages="$wanted_packages curl"
    [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -n "${SSL_CERT_FILE:-}" ] ||
        [ -d /etc/pki ] || wanted_packages="$wanted_packages ca-certificates"
    cc_works || wanted_packages="$wanted_packages gcc libc6-dev"
    if [ -n "$wanted_packages" ]; then
        # Splitting is intended: a list of words.
        # shellcheck disable=SC2086
        apt_install $wanted_packages
    fi
}

# Installs the Rust toolchain of rust-toolchain.toml and puts cargo on the PATH.
ensure_rust() {
    channel=$(sed -n 's/^channel *= *"\([^"]*\)".*/\1/p' "$root/rust-toolchain.toml")
    cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
    # rustup may have been installed after this shell was started.
    case ":$PATH:" in
        *":$cargo_home/bin:"*) ;;
        *) [ ! -x "$cargo_home/bin/cargo" ] || PATH="$cargo_home/bin:$PATH" ;;
    esac
    export PATH
    if ! have rustup && ! rust_is_new_enough; then
        say "Installing Rust $channel with the rustup installer, into $cargo_home"
        # Download all of it before it runs: an incomplete script must not be executed.
        installer=$(curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs) ||
            die "cannot fetch https://sh.rustup.rs; install Rust $channel and start again"
        # An older Rust of the distribution stays: ours comes first only on the PATH of this script.
        printf '%s\n' "$installer" | RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -s -- \
            -y --profile minimal --default-toolchain none --no-modify-path ||
            die "the rustup installer failed; its messages are above"
        PATH="$cargo_home/bin:$PATH"
        export PATH
    fi
    if have rustup && ! rustup run "$channel" cargo --version >/dev/null 2>&1; then
        # The same version may be installed under another name, such as `stable`.
        same=$(toolchain_of_version "$channel")
        if [ -n "$same" ]; then
            RUSTUP_TOOLCHAIN=$same
            export RUSTUP_TOOLCHAIN
        else
            say "Installing the Rust toolchain $channel"
            rustup toolchain install "$channel" --profile minimal ||
                die "rustup cannot install the toolchain $channel"
        fi
    fi
}

# Prints the name of an installed toolchain with this rustc version, if there is one.
toolchain_of_version() {
    rustup toolchain list | while read -r toolchain _; do
        case $(rustup run "$toolchain" rustc --version 2>/dev/null) in
            "rustc $1 "*) say "$toolchain"; break ;;
        esac
    done
}

# Whether a Rust that was installed without rustup is as new as Cargo.toml requires.
rust_is_new_enough() {
    have cargo && have rustc || return 1
    needed=$(sed -n 's/^rust-version *= *"1\.\([0-9]*\).*/\1/p' "$root/Cargo.toml")
    there=$(cd "$root" && rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ -n "$there" ] && [ "$there" -ge "${needed:-0}" ]
}

# Prints the target directory of cargo. Environment and configuration can move it.
cargo_target_dir() {
    (cd "$root" && cargo metadata --format-version 1 --no-deps --locked) |
        sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Whether a child process runs. A child that ended stays a zombie until it is waited for, and
# `kill -0` succeeds for a zombie.
running() {
    kill -0 "$1" 2>/dev/null || return 1
    ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# Stops child processes with SIGTERM, and after a number of tenths of a second with SIGKILL.
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
