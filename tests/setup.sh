#!/usr/bin/env bash
# Installs what the tests start servers of their own from: PostgreSQL's and MariaDB's server binaries. Does nothing where they are
# there; says exactly what to install where it may not. Starts no server and leaves none behind that the system would start.
set -euo pipefail

# The same places as tests/servers/src/find.rs looks in.
has() {
    local name=$1 place
    shift
    command -v "$name" >/dev/null && return
    for place in "$@"; do [ -x "$place/$name" ] && return; done
    return 1
}

has_postgres() {
    local name
    for name in postgres initdb; do
        has "$name" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin \
            /usr/local/opt/postgresql@*/bin /usr/local/pgsql/bin || return 1
    done
}

has_mariadb() {
    local name
    for name in mariadbd mariadb-install-db; do
        has "$name" /usr/sbin /usr/libexec /usr/bin /usr/local/sbin /opt/homebrew/opt/mariadb/bin /usr/local/opt/mariadb/bin \
            /usr/local/mysql/bin || return 1
    done
}

# as_root COMMAND...: with sudo, which may_install has found to need no password.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# may_install COMMAND...: goes on only if this user may run it as root; otherwise a person must, and is told what.
may_install() {
    if [ "$(id -u)" -eq 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; then return; fi
    echo "tests/setup.sh: not root, and sudo is not there or wants a password. Run this, then try again:" >&2
    echo "    sudo $*" >&2
    exit 1
}

# Debian's packages would make a cluster for the whole system and start it. While they are installed, one file keeps them from
# making one, and policy-rc.d from starting anything (only if nobody else's is there).
install_apt() {
    may_install apt-get install -y "$@"
    local -a mine=()
    local drop_in=/etc/postgresql-common/createcluster.d/tcc-tests.conf policy=/usr/sbin/policy-rc.d status=0
    if [[ " $* " == *" postgresql "* ]]; then
        as_root mkdir -p "${drop_in%/*}"
        echo "create_main_cluster = false" | as_root tee "$drop_in" >/dev/null
        mine+=("$drop_in")
    fi
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        mine+=("$policy")
    fi
    as_root apt-get update -q || status=$?
    if [ "$status" -eq 0 ]; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" || status=$?
    fi
    if [ "${#mine[@]}" -gt 0 ]; then as_root rm -f "${mine[@]}"; fi
    return "$status"
}

missing=()
has_postgres || missing+=(postgres)
has_mariadb || missing+=(mariadb)
[ "${#missing[@]}" -gt 0 ] || exit 0

# packages FOR_POSTGRES FOR_MARIADB: those of what is missing, in one list.
packages() {
    local one
    for one in "${missing[@]}"; do
        case $one in
            postgres) echo "$1" ;;
            mariadb) echo "$2" ;;
        esac
    done | xargs
}

echo "tests/setup.sh: installing the server binaries of: ${missing[*]}"
if command -v apt-get >/dev/null; then
    read -ra list <<<"$(packages postgresql 'mariadb-server-core mariadb-client-core')"
    install_apt "${list[@]}"
elif command -v dnf >/dev/null; then
    read -ra list <<<"$(packages postgresql-server mariadb-server)"
    may_install dnf install -y "${list[@]}"
    as_root dnf install -y "${list[@]}"
elif command -v pacman >/dev/null; then
    read -ra list <<<"$(packages postgresql mariadb)"
    may_install pacman -S "${list[@]}"
    as_root pacman -S --needed --noconfirm "${list[@]}"
elif command -v brew >/dev/null; then
    read -ra list <<<"$(packages postgresql@17 mariadb)"
    brew install "${list[@]}"
else
    echo "tests/setup.sh: no package manager that it knows. Install PostgreSQL (postgres, initdb) and MariaDB (mariadbd," >&2
    echo "mariadb-install-db), so that they are in PATH." >&2
    exit 1
fi

if ! has_postgres || ! has_mariadb; then
    echo "tests/setup.sh: installed, but the binaries are still not found (postgres, initdb, mariadbd, mariadb-install-db)" >&2
    exit 1
fi
