#!/bin/bash
# A real S3 server on loopback for tests: a single-node Ceph RADOS gateway from Debian packages, without systemd.
#   apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common curl
# Usage: ceph_rgw.sh start|stop|wipe|status
# Environment: CEPH_DIR   private folder of this instance      (default $TMPDIR/anyfs-ceph-$RGW_PORT)
#              RGW_PORT   port of the gateway, on 127.0.0.1     (default 7480)
#              CEPH_STORE memstore (gone at stop) | bluestore   (default memstore)
# Two instances with different CEPH_DIR and RGW_PORT run side by side: the other ports follow from RGW_PORT.
# Up in about 13 s. Keys: anyfs / anyfssecret. `start` on a running instance does nothing.
set -euo pipefail
PORT=${RGW_PORT:-7480}
D=${CEPH_DIR:-${TMPDIR:-/tmp}/anyfs-ceph-$PORT}
STORE=${CEPH_STORE:-memstore}
MON_V2=$((10000 + PORT))
MON_V1=$((20000 + PORT))
export CEPH_CONF=$D/ceph.conf

# Only processes whose pid file is ours and whose command line names our folder are touched.
ours() { [ -f "$D/run/$1.pid" ] && tr '\0' ' ' <"/proc/$(cat "$D/run/$1.pid")/cmdline" 2>/dev/null | grep -qF "$D"; }
stop() {
  local name
  for name in rgw osd mon; do if ours $name; then kill "$(cat "$D/run/$name.pid")" 2>/dev/null || true; fi; done
  for _ in $(seq 50); do
    if ! ours rgw && ! ours osd && ! ours mon; then break; fi
    sleep .1
  done
  for name in rgw osd mon; do
    if ours $name; then kill -9 "$(cat "$D/run/$name.pid")" 2>/dev/null || true; fi
    rm -f "$D/run/$name.pid"
  done
  # What memstore held is gone with its process: the next start begins anew.
  if [ "$STORE" = memstore ]; then rm -rf "$D/mon" "$D/osd" "$D/run" "$D/keyring" "$D/fsid"; fi
}
up() { curl -s -m 2 -o /dev/null "http://127.0.0.1:$PORT/"; }
fail() {
  echo "ceph_rgw: $1; see $D/log" >&2
  stop
  exit 1
}

case "${1:-start}" in
start) ;;
stop)
  stop
  exit
  ;;
wipe)
  stop
  rm -rf "$D"
  exit
  ;;
status)
  if up; then echo up; else
    echo down
    exit 1
  fi
  exit
  ;;
*)
  echo "usage: $0 start|stop|wipe|status" >&2
  exit 2
  ;;
esac
for tool in radosgw ceph-mon ceph-osd ceph curl; do
  command -v $tool >/dev/null || {
    echo "ceph_rgw: $tool is not installed: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common curl" >&2
    exit 3
  }
done
if ours rgw && up; then
  echo "RGW ready on http://127.0.0.1:$PORT key=anyfs secret=anyfssecret"
  exit
fi
if up; then
  echo "ceph_rgw: port $PORT is taken by something else: set RGW_PORT" >&2
  exit 1
fi
if [ -d "$D/mon" ]; then stop; fi
mkdir -p "$D"/{run,log,mon,osd}
chmod 700 "$D"
FSID=$(cat "$D/fsid" 2>/dev/null || tee "$D/fsid" </proc/sys/kernel/random/uuid)
cat >"$D/ceph.conf" <<CONF
[global]
fsid = $FSID
mon host = v2:127.0.0.1:$MON_V2,v1:127.0.0.1:$MON_V1
public network = 127.0.0.0/8
auth allow insecure global id reclaim = false
keyring = $D/keyring
run dir = $D/run
admin socket = $D/run/\$cluster-\$name.asok
pid file = $D/run/\$type.pid
log file = $D/log/\$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
[mon]
mon data = $D/mon
mon data avail crit = 1
mon data avail warn = 2
[osd]
osd data = $D/osd
osd objectstore = $STORE
memstore device bytes = 6442450944
bluestore block size = 10737418240
osd max object name len = 1024
osd memory target = 1073741824
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw dns name = localhost
rgw thread pool size = 64
rgw enable usage log = false
rgw enable ops log = false
rgw gc obj min wait = 20
rgw gc processor period = 20
rgw gc processor max time = 20
CONF
if [ ! -e "$D/mon/done" ]; then
  monmaptool --create --clobber --addv a "[v2:127.0.0.1:$MON_V2,v1:127.0.0.1:$MON_V1]" --fsid "$FSID" "$D/monmap" >/dev/null
  ceph-authtool --create-keyring "$D/keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
  ceph-authtool "$D/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  ceph-authtool "$D/keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
  ceph-authtool "$D/keyring" --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'
  ceph-mon -c "$CEPH_CONF" --mkfs -i a --monmap "$D/monmap" --keyring "$D/keyring"
  touch "$D/mon/done"
fi
ceph-mon -c "$CEPH_CONF" -i a --pid-file "$D/run/mon.pid" || fail "the monitor did not start"
ceph --connect-timeout 20 mon enable-msgr2 >/dev/null 2>&1 || true
if [ ! -e "$D/osd/done" ]; then
  OSD=$(cat /proc/sys/kernel/random/uuid)
  ceph osd new "$OSD" >/dev/null || fail "the monitor does not answer"
  ceph-osd -c "$CEPH_CONF" -i 0 --mkfs --osd-uuid "$OSD" >/dev/null 2>&1 || fail "the store could not be made"
  touch "$D/osd/done"
fi
ceph-osd -c "$CEPH_CONF" -i 0 --pid-file "$D/run/osd.pid" >/dev/null 2>&1 || fail "the store did not start"
for _ in $(seq 50); do
  if ceph osd stat 2>/dev/null | grep -q '1 up'; then break; fi
  sleep .2
done
radosgw -c "$CEPH_CONF" -n client.rgw --pid-file "$D/run/rgw.pid" || fail "the gateway did not start"
for _ in $(seq 300); do
  if up; then break; fi
  sleep .2
done
up || fail "the gateway does not answer"
radosgw-admin user info --uid=any >/dev/null 2>&1 ||
  radosgw-admin user create --uid=any --display-name=any --access-key=anyfs --secret-key=anyfssecret --max-buckets=0 >/dev/null 2>&1 ||
  fail "the user could not be made"
echo "RGW ready on http://127.0.0.1:$PORT key=anyfs secret=anyfssecret"
