# Sourced by scripts/demo and scripts/test: finds the pinned Deno, and installs the system packages they use.
# POSIX sh; sets and reads nothing beyond what it says.

ANYFS_DENO_VERSION=2.7.11

# npm downloads by Deno trust the system's certificates too. It has to be set before Deno starts: `deno task` already
# resolves npm packages.
DENO_TLS_CA_STORE=${DENO_TLS_CA_STORE:-system,mozilla}
# Nothing may be printed after the summary: neither tool looks for updates of itself.
DENO_NO_UPDATE_CHECK=1
npm_config_update_notifier=false
export DENO_TLS_CA_STORE DENO_NO_UPDATE_CHECK npm_config_update_notifier

# Sets ANYFS_DENO: `path` or `npx`. Inside `deno task` the word deno is the same executable in both cases.
find_deno() {
  if command -v deno >/dev/null 2>&1 && deno --version 2>/dev/null | head -n 1 | grep -q "^deno $ANYFS_DENO_VERSION "; then
    ANYFS_DENO=path
  elif command -v npx >/dev/null 2>&1; then
    ANYFS_DENO=npx
    echo "Deno $ANYFS_DENO_VERSION is not on the PATH: using npx deno@$ANYFS_DENO_VERSION" >&2
  else
    echo "AnyFS needs Deno $ANYFS_DENO_VERSION, or Node with npm to fetch it; install Node 20 or newer" >&2
    exit 1
  fi
}

exec_deno() {
  if [ "$ANYFS_DENO" = path ]; then
    exec deno "$@"
  else
    exec npx -y "deno@$ANYFS_DENO_VERSION" "$@"
  fi
}

# want COMMAND PACKAGES WHAT_IS_SKIPPED: notes the packages when the command is missing.
anyfs_missing=
anyfs_wanted=
want() {
  PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 && return 0
  anyfs_missing="$anyfs_missing$1|$2|$3
"
  anyfs_wanted="$anyfs_wanted $2"
}

install_wanted() {
  [ -n "$anyfs_wanted" ] || return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$anyfs_wanted" >&2
    anyfs_log=$(mktemp)
    # shellcheck disable=SC2086
    if ! anyfs_apt $anyfs_wanted; then
      # One package that can't be had must not keep the others away.
      for anyfs_package in $anyfs_wanted; do anyfs_apt "$anyfs_package" || true; done
    fi
    rm -f "$anyfs_log"
  fi
  printf '%s' "$anyfs_missing" | while IFS='|' read -r anyfs_command anyfs_packages anyfs_skipped; do
    command -v "$anyfs_command" >/dev/null 2>&1 && continue
    echo "not installed: $anyfs_packages. Skipped for it: $anyfs_skipped (as root: apt-get install $anyfs_packages)" >&2
  done
}

anyfs_updated=
anyfs_apt() {
  if [ -z "$anyfs_updated" ]; then
    anyfs_updated=1
    timeout 120 apt-get update >"$anyfs_log" 2>&1 || true
  fi
  DEBIAN_FRONTEND=noninteractive timeout 420 apt-get install -y --no-install-recommends "$@" >"$anyfs_log" 2>&1
}

install_demo_packages() {
  want fusermount3 fuse3 "mounting"
  install_wanted
}

install_test_packages() {
  want fusermount3 fuse3 "tests that mount as a user other than root"
  want rsync rsync "rsync over a mount"
  want getfattr attr "extended attributes seen from outside"
  want sqlite3 sqlite3 "SQLite databases on a mount"
  want fio fio "fio's verifying writes on a mount"
  want git git "git on a mount"
  want curl curl "the HTTP interface seen from outside"
  want rclone rclone "the rclone backend"
  want sshd openssh-server "the SFTP backend"
  want radosgw "radosgw ceph-mon ceph-osd ceph-common" "S3 against a real server"
  want zsh zsh "completions in zsh"
  want fish fish "completions in fish"
  install_wanted
}
