# Runs one database server for a test process. Started by tcc-servers as
#   sh -c "$THIS" tcc-servers FOLDER GRACEFUL LAST COMMAND...
# It obeys words on its standard input (start, kill, stop, check, limit BYTES), and answers each with one line. The end of the standard input
# is the end of the test process, however that came about: then the server and the folder go too.
set -u
folder=$1 graceful=$2 last=$3
shift 3
server=

# The state letter of process $1; fails if there is none.
state() {
    if [ -r /proc/self/stat ]; then
        { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
        rest=${line##*") "}
        echo "${rest%% *}"
    else
        found=$(ps -o state= -p "$1" 2>/dev/null) && [ -n "$found" ] && echo "$found"
    fi
}

# A zombie is no longer a server.
alive() {
    case $(state "$1") in
        '' | Z* | X*) return 1 ;;
        *) return 0 ;;
    esac
}

children() {
    if [ -r /proc/self/stat ]; then
        for file in /proc/[0-9]*/stat; do
            { read -r line <"$file"; } 2>/dev/null || continue
            rest=${line##*") "}
            rest=${rest#* }
            if [ "${rest%% *}" = "$1" ]; then echo "${line%% *}"; fi
        done
    else
        ps -A -o pid=,ppid= | while read -r pid parent; do
            if [ "$parent" = "$1" ]; then echo "$pid"; fi
        done
    fi
}

# PostgreSQL's backends are process groups of their own, and would finish what they are doing: they are found and killed too.
# The parent stands still meanwhile, so that no new one is missed.
kill_all() {
    if kill -STOP "$server" 2>/dev/null; then
        tries=0
        while [ "$tries" -lt 500 ]; do
            case $(state "$server") in
                '' | T* | Z* | X*) break ;;
            esac
            sleep 0.01
            tries=$((tries + 1))
        done
    fi
    backends=$(children "$server")
    kill -KILL "$server" 2>/dev/null
    for backend in $backends; do kill -KILL "$backend" 2>/dev/null; done
    wait "$server" 2>/dev/null
    for backend in $backends; do
        while alive "$backend"; do sleep 0.01; done
    done
    server=
}

end() {
    trap '' HUP INT TERM
    if [ -n "$server" ]; then
        # PostgreSQL's immediate shutdown also gives back what it holds of the system's shared memory.
        kill "-$last" "$server" 2>/dev/null
        tries=0
        while alive "$server" && [ "$tries" -lt 100 ]; do
            sleep 0.05
            tries=$((tries + 1))
        done
        kill_all
    fi
    # A PostgreSQL that was killed has left its segment of System V shared memory to the next one on its data folder.
    segment=$(sed -n '7s/^ *[0-9]*  *//p' "$folder/data/postmaster.pid" 2>/dev/null)
    if [ -n "$segment" ]; then ipcrm -m "$segment" 2>/dev/null; fi
    cd /
    rm -rf "$folder"
}
trap end EXIT
trap 'exit 1' HUP INT TERM

while read -r word; do
    case $word in
        start)
            "$@" </dev/null >>"$folder/log" 2>&1 &
            server=$!
            echo "started $server"
            ;;
        check)
            if [ -n "$server" ] && alive "$server"; then echo alive; else echo gone; fi
            ;;
        limit*)
            # The server comes first, so that what it starts meanwhile has the limit already. Whoever is gone needs none.
            answer=limited
            if [ -n "$server" ]; then
                for process in "$server" $(children "$server"); do
                    if ! prlimit --pid "$process" --fsize="${word#limit }:" 2>/dev/null && alive "$process"; then answer=failed; fi
                done
            fi
            echo "$answer"
            ;;
        kill)
            if [ -n "$server" ]; then kill_all; fi
            echo gone
            ;;
        stop)
            if [ -n "$server" ]; then
                kill "-$graceful" "$server" 2>/dev/null
                wait "$server"
                echo "ended $?"
                server=
            else
                echo "ended 0"
            fi
            ;;
        *) echo "unknown $word" ;;
    esac
done
