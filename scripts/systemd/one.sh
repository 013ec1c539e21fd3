# shellcheck disable=SC2154 # what is not assigned here is in box.sh
# shellcheck shell=bash
# One machine with one node, and then with a flock of three. Sourced by scripts/try-systemd.

# What every node must reach. README.md: alone, a node of the demo knows 28 % of the test rows.
ACCURACY_MIN=0.75
# What README.md promises for SIGTERM.
STOP_S_MAX=10
EXPOSURE_MAX=1.3
drop_in=/run/systemd/system/starling@3.service.d

# The worst of three nodes; empty before each has been scored by its peers.
worst() {
  local node value lowest=''
  for node in 1 2 3; do
    value=$(status "starling-$node" | field cross_accuracy) || return 0
    if [[ -z $lowest ]] || at_most "$value" "$lowest"; then lowest=$value; fi
  done
  printf '%s\n' "$lowest"
}
scored() { [[ -n $(worst) ]]; }
accurate() { at_least "$(worst)" "$ACCURACY_MIN"; }

# Everything by our name where packages and daemons leave things.
traces() {
  in_box find /etc /usr /var /run -xdev -name '*starling*' | sort
  in_box getent passwd | grep starling || true
  in_box getent group | grep starling || true
  in_box systemctl list-units --all --plain --no-legend 'starling*'
  in_box pgrep -x starling || true
}

# ---- the checks ----

check_installed() {
  local unit mode text
  mode=$(in_box stat -c '%U:%G %a' /var/lib/starling || true)
  expect "the user and its folder are there" "$mode" [ "$mode" = "starling:starling 750" ]
  text=$(in_box systemd-analyze verify --man=no starling.service starling@1.service 2>&1) || true
  expect "systemd-analyze verify finds nothing" "${text:-clean}" [ -z "$text" ]
  for unit in starling.service starling@1.service; do
    text=$(in_box systemd-analyze security "$unit" | sed -n 's/.*: \([0-9.]*\) .*/\1/p' | tail -1)
    expect "exposure of $unit is at most $EXPOSURE_MAX" "$text" at_most "$text" "$EXPOSURE_MAX"
  done
}

check_unconfigured() {
  local began=$EPOCHREALTIME figure
  if in_box systemctl start starling 2>/dev/null; then true; fi
  figure="exit $(property starling ExecMainStatus), $(property starling NRestarts) restarts"
  figure="$figure, $(since "$began") s"
  expect "a node without a network fails at once, for good" "$figure" \
    [ "${figure%,*}" = "exit 78, 0 restarts" ]
  in_box systemctl reset-failed starling
}

check_single() {
  local began node store owners figure
  # As root, and without a word on where: the package's folder is there.
  plant_canaries
  in_box starling init --data "$canary_file" --label-column y --age-max 0 --set resources.nice=7 >/dev/null
  owners=$(in_box find /var/lib/starling -printf '%u\n' | sort -u | xargs)
  expect "what root made is the user's" "$owners" [ "$owners" = starling ]
  began=$EPOCHREALTIME
  in_box systemctl start starling || true
  expect "starling.service is ready" "$(since "$began") s" has starling ActiveState active
  wait_for "a first round" "$PATIENCE_S" beyond starling 0 || true
  # shellcheck disable=SC2016 # It is for the shell in the box.
  in_box sh -c 'starling status --json; starling check; for what in status peers privacy limits; do
    starling $what; done' >"$work/$box/said" 2>&1 || true
  node=$(in_box ps -o ni= -p "$(property starling MainPID)" | tr -d ' ')
  expect "resources.nice takes effect under the sandbox" "nice $node" [ "$node" = 7 ]

  in_box useradd --groups starling anna
  in_box useradd boris
  expect "a member of the group may ask" "" asks anna
  expect "without saying where" "" in_box runuser -u anna -- starling status >/dev/null
  in_box runuser -u anna -- starling checkpoint >/dev/null
  # The sandbox shows it no users but root and its own: others are 65534.
  figure=$(last control.requested | grep -oE '"(pid|uid)":[0-9]+' | sort | xargs)
  expect "the log has who asked for a change" "$figure" grep -qE '^pid:[0-9]+ uid:65534$' <<<"$figure"
  expect "others may not" "" not asks boris
  expect "nor may the group read the key" "" \
    not in_box runuser -u anna -- cat /var/lib/starling/identity.seed 2>/dev/null

  node=$(node_of starling)
  store=/etc/credstore
  in_box install -d -m 0700 "$store" /etc/systemd/system/starling.service.d
  in_box mv /var/lib/starling/identity.seed "$store/starling.identity"
  in_box chown root:root "$store/starling.identity"
  in_box cp /usr/share/doc/starling/examples/credential.conf \
    /etc/systemd/system/starling.service.d/
  in_box systemctl daemon-reload
  in_box systemctl restart starling || true
  wait_for "an answer" "$PATIENCE_S" status starling >/dev/null || true
  expect "the same node with its key as a credential" "$(node_of starling | cut -c 9-30)" \
    [ "$(node_of starling)" = "$node" ]
  in_box systemctl stop starling
  in_box mv "$store/starling.identity" /var/lib/starling/identity.seed
  in_box chown starling: /var/lib/starling/identity.seed
  in_box rm -r /etc/systemd/system/starling.service.d "$store"
  in_box systemctl daemon-reload
}

# set_key LINE: puts it in the place of what the configuration has of that key.
set_key() { in_box sed -i "s/^#* *${1%% *} = .*/$1/" /var/lib/starling/starling.toml; }

lines() { log starling | grep -c '^{' || true; }
# last EVENT: its last line.
last() { log starling | grep "\"event\":\"$1\"" | tail -n 1; }
told() { [[ -n $(last "$1") ]]; }

check_reload() {
  local pid before figure
  in_box systemctl start starling
  pid=$(property starling MainPID)
  set_key 'level = "warn"'
  expect "systemctl reload takes a changed log level" "" in_box systemctl reload starling
  figure=$(last config.reloaded | grep -oE '"applied":[^]]*]' || true)
  expect "and names it" "$figure" [ "$figure" = '"applied":["log.level"]' ]
  before=$(lines)
  in_box starling checkpoint >/dev/null
  expect "nothing is written below that level" "$(($(lines) - before)) lines" [ "$(lines)" = "$before" ]
  set_key 'level = "loud"'
  expect "it refuses a broken file" "" not in_box systemctl reload starling 2>/dev/null
  figure=$(last config.reload_rejected | grep -oE 'starling.toml:[0-9]+: [a-z.]+' | head -n 1 || true)
  expect "and names the line" "$figure" grep -q 'log.level' <<<"$figure"
  expect "while it stays up" "pid $pid" [ "$(property starling MainPID)" = "$pid" ]
  set_key 'level = "info"'
  set_key 'checkpoint_interval_s = 0.5'
  set_key 'nice = 9'
  set_key 'seed = 5'
  figure=$(in_box starling reload | xargs)
  expect "put right, it takes the rest and names what waits" "$figure" [ "$figure" = "$(xargs <<END
applied storage.checkpoint_interval_s applied log.level applied resources.nice
restart training.seed: the old value stays in force until then
END
  )" ]
  figure=$(in_box ps -L -o ni= -p "$pid" | sort -u | xargs)
  expect "a higher nice holds for every thread" "nice $figure" [ "$figure" = 9 ]
}

check_full_disk() {
  local disk=/var/lib/starling/checkpoints figure
  in_box systemctl stop starling
  in_box mount -t tmpfs -o "size=512k,mode=700,uid=$(in_box id -u starling)" full "$disk"
  in_box systemctl start starling
  wait_for "a checkpoint" "$PATIENCE_S" told checkpoint.saved || true
  in_box sh -c "cat /dev/zero >$disk/filler" 2>/dev/null || true
  wait_for "a full disk" "$PATIENCE_S" told daemon.degraded || true
  figure=$(last checkpoint.failed | grep -oE '"reason":"[^"]*"' | cut -c 11-70 || true)
  expect "a full disk degrades" "$figure" told daemon.degraded
  expect "and the status says so" "" grep -q '"degraded":true' <(status starling)
  in_box rm "$disk/filler"
  wait_for "the recovery" "$PATIENCE_S" told daemon.recovered || true
  expect "free again, it recovers" "" grep -q '"degraded":false' <(status starling)
  expect "all the while it ran" "" has starling NRestarts 0
  in_box systemctl stop starling
  in_box umount "$disk"
}

check_leave() {
  local figure
  in_box systemctl start starling
  figure=$(in_box starling leave)
  wait_for "the end" "$PATIENCE_S" has starling SubState dead || true
  expect "starling leave ends it for good" "${figure##left * generation}" \
    has starling Result success
  expect "systemd does not start it again" "" has starling NRestarts 0
}
asks() {
  in_box runuser -u "$1" -- starling status --state-dir /var/lib/starling >/dev/null 2>&1
}

# Three nodes, each with about two of ten classes; they begin when all have met.
make_flock() {
  local node ticket began=$EPOCHREALTIME
  local common=(--split 'shards=2' --data digits --set network.mdns=false
    --set storage.checkpoint_interval_s=2 --set training.start_peers=2)
  in_box starling init --state-dir /var/lib/starling-1 --part 1/3 --age-max 0 \
    --listen /ip4/0.0.0.0/tcp/4101 "${common[@]}" >/dev/null
  in_box systemctl start starling@1
  ticket=$(in_box starling invite --state-dir /var/lib/starling-1 --uses 2)
  # Hangs are found after a minute; here there is less time.
  in_box mkdir -p "$drop_in"
  in_box sh -c "printf '[Service]\nWatchdogSec=6\n' >$drop_in/try.conf"
  in_box systemctl daemon-reload
  for node in 2 3; do
    in_box starling join "$ticket" --state-dir "/var/lib/starling-$node" --part "$node/3" \
      --listen "/ip4/0.0.0.0/tcp/410$node" "${common[@]}" >/dev/null
    in_box systemctl start "starling@$node"
  done
  ok "three nodes made, joined by ticket and started" "$(since "$began") s"
}

check_flight() {
  local node first last began=$EPOCHREALTIME users
  wait_for "scores" "$PATIENCE_S" scored || true
  first=$(worst)
  wait_for "accuracy $ACCURACY_MIN" "$PATIENCE_S" accurate || true
  last=$(worst)
  for node in 1 2 3; do
    printf '\n'
    in_box systemctl status --lines 0 "starling@$node" || true
  done
  printf '\n'
  for node in 1 2 3; do
    expect "starling@$node has done rounds" "$(round "starling-$node")" beyond "starling-$node" 9
  done
  expect "worst accuracy scored by peers is $ACCURACY_MIN or more" \
    "$first, after $(since "$began") s $last" at_least "$last" "$ACCURACY_MIN"
  expect "one of many reloads as well" "" in_box systemctl reload starling@1
  users=$(in_box stat -Lc %u /var/lib/starling-{1,2,3}/ | sort -u | wc -l)
  expect "each has a user of its own" "$users users" [ "$users" = 3 ]
}

# went_on UNIT PID: a new process is ready, has done rounds since its checkpoint, and merges
# models of its peers again.
went_on() {
  local pid node=${1/@/-}
  pid=$(property "$1" MainPID)
  [[ $pid != 0 && $pid != "$2" ]] && has "$1" ActiveState active &&
    beyond "$node" "$(restored "$1")" && (($(merges "$node") > 0))
}
merges() { status "$1" | field accepted || echo 0; }
restored() { log "$1" | grep '"event":"checkpoint.restored"' | tail -n 1 | field round || echo 0; }

check_kill() {
  local pid before began
  pid=$(property starling@2 MainPID)
  wait_for "a checkpoint" "$PATIENCE_S" saved starling@2 || true
  before=$(round starling-2)
  began=$EPOCHREALTIME
  in_box kill -9 "$pid"
  wait_for "the restart" "$PATIENCE_S" went_on starling@2 "$pid" || true
  expect "kill -9: systemd restarts it" \
    "NRestarts=$(property starling@2 NRestarts), back at work in $(since "$began") s" \
    has starling@2 NRestarts 1
  expect "it goes on from its checkpoint" \
    "killed at round $before, restored $(restored starling@2), now $(round starling-2)" \
    at_least "$(restored starling@2)" 1
}
# The first save, of round 0, comes with the start.
saved() {
  local round
  round=$(log "$1" | grep '"event":"checkpoint.saved"' | tail -n 1 | field round || echo 0)
  ((${round:-0} > 0))
}

check_restart() {
  local pid began
  for _ in 1 2 3; do
    pid=$(property starling@2 MainPID)
    in_box systemctl restart starling@2
    began=$EPOCHREALTIME
    wait_for "merges" "$PATIENCE_S" went_on starling@2 "$pid" || true
    expect "systemctl restart: it finds its flock again" "merging after $(since "$began") s" \
      went_on starling@2 "$pid"
  done
}

check_hang() {
  local pid began
  pid=$(property starling@3 MainPID)
  began=$EPOCHREALTIME
  in_box kill -STOP "$pid"
  wait_for "the watchdog" "$PATIENCE_S" went_on starling@3 "$pid" || true
  expect "hung: the watchdog (here 6 s) restarts it" \
    "NRestarts=$(property starling@3 NRestarts), back at work in $(since "$began") s" \
    has starling@3 NRestarts 1
  if ! have perl; then
    echo "try-systemd: SKIPPED a thread that hangs: it needs perl" >&2
    return
  fi
  pid=$(property starling@3 MainPID)
  began=$EPOCHREALTIME
  cp "$here/stall.pl" "/proc/${init[$box]}/root/run/"
  in_box perl /run/stall.pl "$pid" compute &
  wait_for "the watchdog" "$PATIENCE_S" went_on starling@3 "$pid" || true
  expect "only its trainer hung: the same" \
    "$(watchdog_kills) of 2 by the watchdog, back at work in $(since "$began") s" [ "$(watchdog_kills)" = 2 ]
  in_box rm /run/stall.pl
}
# Of starling@3, by systemd's own account.
watchdog_kills() { in_box journalctl --unit starling@3 --output cat | grep -c "with result 'watchdog'" || true; }

# The same package under a higher version.
make_newer() {
  in_box sh -euc 'dpkg-deb --raw-extract /run/package.deb /run/newer
    sed -i "s/^Version: .*/&+1/" /run/newer/DEBIAN/control
    dpkg-deb --root-owner-group --build /run/newer /run/newer.deb >/dev/null
    rm -r /run/newer'
}
upgrade() { in_box dpkg -i /run/newer.deb >"$work/$box/dpkg" 2>&1; }
# shellcheck disable=SC2016 # dpkg-query expands it
installed() { in_box dpkg-query --show --showformat '${Version} ${db:Status-Status}' starling; }

check_upgrade() {
  local pid seed before began
  pid=$(property starling@1 MainPID)
  seed=$(seed_of starling-1)
  before=$(installed)
  make_newer
  # One of the three cannot come up again.
  in_box sh -c 'echo "[nonsense" >>/var/lib/starling-3/starling.toml'
  began=$EPOCHREALTIME
  expect "an upgrade does not fail for a node that does" "" upgrade
  expect "it goes from a lower to a higher version" "$before, $(installed)" \
    [ "$(installed)" = "${before% *}+1 installed" ]
  expect "it says which" "" grep -q "^starling: a node did not come up" "$work/$box/dpkg"
  wait_for "the upgrade" "$PATIENCE_S" went_on starling@1 "$pid" || true
  expect "the other running nodes are restarted" \
    "restored round $(restored starling@1), back at work in $(since "$began") s" \
    went_on starling@1 "$pid"
  expect "and keep their state" "key $seed" [ "$(seed_of starling-1)" = "$seed" ]
  expect "and none is started that was stopped" "" has starling ActiveState inactive
  in_box sed -i '/^\[nonsense$/d' /var/lib/starling-3/starling.toml
  in_box systemctl reset-failed starling@3
  expect "put right, the node comes up" "" in_box systemctl start starling@3
}

check_stop() {
  local began=$EPOCHREALTIME took node results=''
  in_box systemctl stop 'starling@*.service' || true
  took=$(since "$began")
  expect "all three stop in less than $STOP_S_MAX s" "$took s" at_most "$took" "$STOP_S_MAX"
  # The journal takes the last lines when it gets to them.
  wait_for "the last words" "$PATIENCE_S" all_said_so || true
  for node in 1 2 3; do
    results="$results $(property "starling@$node" Result)/$(stops "starling@$node")"
  done
  expect "each saved and said so at every stop" "${results# }" all_said_so
}
stops() { log "$1" | grep -c '"event":"daemon.stopped"' || true; }
# All were stopped for the upgrade as well, and node 2 three times before.
all_said_so() {
  [[ $(for node in 1 2 3; do stops "starling@$node"; done | xargs) = "2 5 2" ]] &&
    [[ $(in_box systemctl show --property Result --value starling@{1..3} | xargs) = "success success success" ]]
}

check_purge() {
  local began=$EPOCHREALTIME left
  in_box systemctl enable --quiet starling starling@1
  in_box rm -r "$drop_in"
  # What the examples of the package say to do.
  in_box install -d -m 0700 /etc/credstore /etc/systemd/system/starling.service.d
  in_box cp /var/lib/starling/identity.seed /etc/credstore/starling.identity
  in_box cp /usr/share/doc/starling/examples/credential.conf /etc/systemd/system/starling.service.d/
  in_box cp /usr/share/doc/starling/examples/starling-metrics.socket /etc/systemd/system/
  in_box systemctl daemon-reload
  in_box systemctl enable --quiet --now starling-metrics.socket
  in_box dpkg --purge starling >"$work/$box/dpkg" 2>&1 || cat "$work/$box/dpkg"
  ok "the package is purged" "$(since "$began") s"
  left=$(comm -13 "$work/before" <(traces | sort))
  expect "no file, user, unit or process is left" "${left:-none}" [ -z "$left" ]
}

try_one() {
  local began=$EPOCHREALTIME
  box=box
  boot box
  ready
  ok "boot of $(in_box systemctl --version | head -n 1)" "$(since "$began") s"
  traces | sort >"$work/before"
  install_it
  check_installed
  check_unconfigured
  check_single
  check_reload
  check_full_disk
  check_leave
  make_flock
  check_flight
  check_kill
  check_restart
  check_hang
  check_upgrade
  check_stop
  check_journal
  if ((failures > 0)); then in_box journalctl --no-pager --lines 60 | cut -c 1-240 >&2; fi
  check_purge
}
