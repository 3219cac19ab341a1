#!/bin/sh
# Uses the program as people do, a little of everything that should start fast: use_program.sh EXECUTABLE FOLDER OUT
# FOLDER is an empty one for its files. Each run gets a folder of its own below OUT in ANYFS_CODE_OUT (recorder.ts).
# What can't be done here is told on standard error; it ends with 1 when not even a server could be run.
program=$1 folder=$2 out=$3
export HOME="$folder" XDG_CONFIG_HOME="$folder" XDG_CACHE_HOME="$folder" TMPDIR="$folder" LC_ALL=C.UTF-8
unset ANYFS_URL ANYFS_TOKEN ANYFS_CODE_IN
server= mount=

finish() {
  [ -z "$mount" ] || kill -KILL "$mount" 2>/dev/null
  [ -z "$server" ] || kill -KILL "$server" 2>/dev/null
  umount -l "$folder/mnt" 2>/dev/null || fusermount3 -uz "$folder/mnt" 2>/dev/null
  exit "$1"
}
trap 'finish 1' INT TERM HUP

# wait_for WORD FILE PID: until the process has written the word; 1 when it ended or ten seconds are over.
wait_for() {
  tries=0
  until grep -q "$1" "$2" 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ] || ! kill -0 "$3" 2>/dev/null; then
      echo "$program: $(cat "$2")" >&2
      return 1
    fi
    sleep 0.1
  done
}

ANYFS_CODE_OUT="$out/serve" "$program" serve --listen 127.0.0.1:0 --state-dir "$folder/state" >"$folder/serve.log" 2>&1 &
server=$!
wait_for 'ready at' "$folder/serve.log" "$server" || finish 1
url=$(sed -n 's/.*ready at //p' "$folder/serve.log")
echo "a few bytes" >"$folder/file"
for command in "put $folder/file /file" "ls -l /" "cat /file" "stat /file" "status"; do
  # shellcheck disable=SC2086
  ANYFS_CODE_OUT="$out/${command%% *}" timeout 20 "$program" --server "$url" $command >"$folder/command.log" 2>&1 ||
    echo "$command: $(cat "$folder/command.log")" >&2
done

mkdir "$folder/mnt"
ANYFS_CODE_OUT="$out/mount" "$program" --server "$url" mount "$folder/mnt" --cache-dir "$folder/cache" \
  >"$folder/mount.log" 2>&1 &
mount=$!
if wait_for 'is mounted' "$folder/mount.log" "$mount"; then
  timeout -s KILL 20 sh -e -c '
    cd "$1" && mkdir -p a/b
    for i in 1 2 3 4 5 6 7 8; do echo "$i" >a/b/$i; cat a/b/$i; done
    ls -lR . && mv a/b/1 a/one && ln a/one a/two && rm a/two && touch a/b/2 && chmod 600 a/b/2
    head -c 3000000 /dev/urandom >large && cp large copy && cmp large copy && df . && find . && rm -r a
  ' sh "$folder/mnt" >"$folder/use.log" 2>&1 || echo "using the mount: $(tail -1 "$folder/use.log")" >&2
fi
kill -TERM "$mount" 2>/dev/null
wait "$mount"
mount=
kill -TERM "$server"
wait "$server"
server=
finish 0
