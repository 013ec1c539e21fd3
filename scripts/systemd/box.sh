# shellcheck shell=bash
# Machines made of namespaces, each with a systemd of its own, over a copy-on-write view of this
# machine's root folder. Sourced by scripts/try-systemd.

# What a box takes a second for on an idle machine may take this long.
PATIENCE_S=90

skip() {
  printf 'try-systemd: SKIPPED, nothing was tried: %s\n' "$*" >&2
  exit 0
}

die() {
  printf 'try-systemd: %s\n' "$*" >&2
  exit 1
}

# ---- boxes ----

# The box that the functions below are about; `on BOX FUNCTION...` names another.
box=''
work='' group=''
declare -A outer=() init=()

on() {
  local box=$1
  shift
  "$@"
}

# Runs as PID 1 of the new namespaces until it becomes systemd. Writes go to memory.
boot_inside() {
  local work=$1 host=$2 root=$1/root/merged name mask
  mount -t tmpfs -o mode=755 box "$work/root"
  mkdir "$work/root/"{upper,scratch,merged}
  mount -t overlay overlay "$root" \
    -o "lowerdir=/,upperdir=$work/root/upper,workdir=$work/root/scratch"
  mount -t proc proc "$root/proc"
  # The kernel's settings are the machine's, not the box's.
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  # Read-only, by which systemd knows to leave devices alone.
  mount -t sysfs -o ro sysfs "$root/sys"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
  mount -t tmpfs -o mode=755 run "$root/run"
  mount -t tmpfs -o mode=1777 tmp "$root/tmp"
  mount -t tmpfs -o mode=755 dev "$root/dev"
  mkdir "$root/dev/"{shm,pts}
  mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
  for name in null zero full random urandom tty; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
  done
  touch "$root/dev/console"
  mount --bind "$work/console" "$root/dev/console"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  cp "$work/../package.deb" "$root/run/"
  # What this machine runs is not to run twice, and nothing waits for its disks or clocks.
  rm -rf "$root"/etc/systemd/system/*.{wants,requires}
  for mask in timers.target systemd-timesyncd.service systemd-update-utmp.service; do
    ln -sfn /dev/null "$root/etc/systemd/system/$mask"
  done
  : >"$root/etc/fstab"
  # An empty one would make this the first boot of a new machine, with every preset applied.
  tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
  mkdir -p "$root/etc/systemd/journald.conf.d"
  printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/zz-box.conf"
  hostname "$host"
  printf '%s\n' "$host" >"$root/etc/hostname"
  ip link set lo up
  mkdir "$root/.old"
  cd "$root" || exit
  pivot_root . .old
  umount -l /.old
  # As on a booted machine; systemd leaves it to whoever made the container. Credentials need it.
  mount --make-rshared /
  exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=try-systemd LANG=C.UTF-8 \
    /lib/systemd/systemd --system --unit=basic.target --show-status=0
}

# Where this process lies in cgroup2, and where that is mounted.
own_group() {
  local mounted own
  mounted=$(findmnt --noheadings --output TARGET --types cgroup2 | head -n 1)
  own=$(sed -n 's/^0:://p' /proc/self/cgroup)
  [[ -n $mounted && -n $own ]] || return 1
  printf '%s\n' "${mounted# }${own%/}"
}

require() {
  local tool
  ((EUID == 0)) || skip "not root"
  for tool in dpkg findmnt ip nsenter pgrep pivot_root runuser setpriv setsid unshare; do
    command -v "$tool" >/dev/null || skip "$tool is missing"
  done
  [[ -x /lib/systemd/systemd ]] || skip "this machine has no systemd to boot"
  [[ ! -e /var/lib/starling && ! -e /usr/bin/starling ]] ||
    skip "starling is installed on this machine, and would be seen in the box"
  group=$(own_group) || skip "no cgroup2 is mounted"
  mkdir "$group/try-systemd-$$" 2>/dev/null || skip "may not make a group in $group"
  group=$group/try-systemd-$$
  mkdir "$work/probe"
  unshare --pid --mount --uts --ipc --net --cgroup --fork --propagation private \
    "$BASH" -euc "$(declare -f probe_inside); probe_inside \"\$1\"" - "$work/probe" \
    >/dev/null 2>&1 || skip "namespaces or overlayfs are not available here"
}

# Also fails where /usr is a file system of its own, which the overlay would not show.
probe_inside() {
  mount -t tmpfs box "$1"
  mkdir "$1/"{upper,scratch,merged}
  mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/scratch" "$1/merged"
  [[ -x $1/merged/lib/systemd/systemd && -x $1/merged/usr/bin/dpkg ]]
}

# boot BOX: begins to boot; `ready` waits for it.
boot() {
  local box=$1 folder=$work/$1 inside
  inside=$(declare -f boot_inside)
  mkdir -p "$folder/root" "$group/$box"
  : >"$folder/console"
  (
    echo "$BASHPID" >"$group/$box/cgroup.procs"
    # Whatever ends this script ends the box: its parent's death reaches PID 1. SIGKILL leaves an
    # empty control group and a folder in /tmp; any other end leaves nothing.
    exec setsid setpriv --pdeathsig KILL unshare --pid --mount --uts --ipc --net --cgroup \
      --fork --kill-child --propagation private \
      "$BASH" -euc "$inside; boot_inside \"\$1\" \"\$2\"" - "$folder" "$box" \
      </dev/null >"$folder/console" 2>&1
  ) &
  outer[$box]=$!
}

ready() {
  local console=$work/$box/console
  wait_for "PID 1" 10 started || die "no box: $(tail -n 5 "$console")"
  wait_for "basic.target" "$PATIENCE_S" booted || die "no boot: $(tail -n 20 "$console")"
}

started() { init[$box]=$(pgrep -P "${outer[$box]}" | head -n 1) && [[ -n ${init[$box]} ]]; }
booted() { started && in_box systemctl is-active --quiet basic.target 2>/dev/null; }

# in_box COMMAND...: runs it in the box, as its root.
in_box() {
  nsenter --target "${init[$box]}" --mount --uts --ipc --net --pid --cgroup --root --wd env -i \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 SYSTEMD_PAGER=cat \
    SYSTEMD_COLORS=0 DEBIAN_FRONTEND=noninteractive "$@" </dev/null
}

# ---- the network between boxes ----

switch=''

# A bridge in a network namespace of its own: nothing of it is seen on this machine.
make_switch() {
  setsid setpriv --pdeathsig KILL unshare --net sleep infinity &
  switch=$!
  wait_for "the switch" 10 in_switch ip link show lo >/dev/null
  wait_for "its own network" 10 separate
  in_switch ip link add bridge0 type bridge
  in_switch ip link set bridge0 up
}

in_switch() { nsenter --target "$switch" --net "$@"; }
separate() { [[ $(readlink "/proc/$switch/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }

# plug NUMBER: gives the box a network card, at 10.77.0.NUMBER.
plug() {
  in_switch ip link add "port$1" type veth peer name eth0 netns "${init[$box]}"
  in_switch ip link set "port$1" master bridge0 up
  in_box ip address add "10.77.0.$1/24" dev eth0
  in_box ip link set eth0 up
}

# ---- the end ----

# The end of a PID 1 is the end of every process and mount of its box.
down() {
  local box
  for box in "${!outer[@]}"; do
    # Its parent ends with it, and takes its exit status: not every machine's init does that.
    kill -KILL "${init[$box]:-${outer[$box]}}" 2>/dev/null || true
  done
  for box in "${!outer[@]}"; do
    wait_for "the end of PID 1" 5 gone "${outer[$box]}" ||
      kill -KILL "${outer[$box]}" 2>/dev/null || true
    wait "${outer[$box]}" 2>/dev/null || true
  done
  if [[ -n $switch ]]; then
    kill -KILL "$switch" 2>/dev/null || true
    wait "$switch" 2>/dev/null || true
  fi
  outer=() init=() switch=''
  if [[ -d $group ]]; then
    # The kernel lets go of a group a moment after its last process.
    wait_for "groups" 10 ungrouped || true
  fi
  if [[ -d $work ]]; then rm -rf --one-file-system "$work"; fi
}

# gone PID: no such process, but for what is left to wait for.
gone() { [[ ! -e /proc/$1 ]] || grep -qs '^State:.Z' "/proc/$1/status"; }

ungrouped() {
  find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
  [[ ! -d $group ]]
}

# ---- telling and waiting ----

failures=0

ok() { printf 'ok    %-58s %s\n' "$1" "$2"; }

# expect WHAT FIGURE COMMAND...: one line, by the command's success.
expect() {
  local what=$1 figure=$2
  shift 2
  if "$@"; then
    ok "$what" "$figure"
  else
    printf 'FAIL  %-58s %s\n' "$what" "$figure"
    failures=$((failures + 1))
  fi
}

since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'; }
at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a + 0 <= b + 0) }'; }
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a + 0 >= b + 0) }'; }

# wait_for WHAT SECONDS COMMAND...: polls until the command succeeds; fails at the deadline.
wait_for() {
  local what=$1 deadline=$((SECONDS + $2))
  shift 2
  until "$@"; do
    if ((SECONDS >= deadline)); then
      printf 'try-systemd: waited in vain for %s\n' "$what" >&2
      return 1
    fi
    sleep 0.2
  done
}

# ---- what must not be told ----

# As no other text has them; the cell is one that no row may have.
canaries=(27182.8182 canary-label-7f31 canary-cell-9b02)
canary_file=/srv/starling/rows.csv

# Rows that can be learnt, and one that cannot, where the service may read them.
plant_canaries() {
  in_box install -d -m 755 "${canary_file%/*}"
  awk -v value="${canaries[0]}" -v label="${canaries[1]}" -v cell="${canaries[2]}" 'BEGIN {
    print "a,y,b"
    for (i = 0; i < 200; i++) {
      a = i * 37 % 101
      b = i * 53 % 97
      first = i == 7 ? cell : sprintf("%s%03d", value, a)
      printf("%s,%s,%d.5\n", first, (a + b > 98) ? label : "low", b)
    }
  }' >"/proc/${init[$box]}/root$canary_file"
}

# The canaries, and the box's keys in the forms in which one could slip out.
secrets() {
  local seed
  printf '%s\n' "${canaries[@]}"
  for seed in $(in_box find /var/lib/ -name identity.seed); do
    in_box od -An -v -tx1 -w8 "$seed" | tr -d ' '
    in_box od -An -v -tu1 -w8 "$seed" | xargs -n 8 | sed 's/ /,/g; p; s/,/, /g'
    # Their first letters are of whole bytes.
    in_box base64 -w 0 "$seed" | cut -c 1-16
    in_box base32 -w 0 "$seed" | cut -c 1-16
  done
}

# What was written since the boot: by the published schema, whole, and without a secret.
check_journal() {
  local folder=$work/$box found
  secrets >"$folder/secrets"
  in_box journalctl --output json --no-pager >"$folder/journal"
  found=$({ grep -iohsF -f "$folder/secrets" -- "$folder"/{journal,console,dpkg,said} || true; } | sort -u | xargs)
  expect "$box: no canary of data or key is in the journal" \
    "$(wc -l <"$folder/secrets") looked for in $(wc -c <"$folder/journal") bytes${found:+: $found}" [ -z "$found" ]
  if ! perl -MJSON::PP -e 1 2>/dev/null; then
    echo "try-systemd: SKIPPED the schema of $box's journal: it needs perl with JSON::PP" >&2
    return
  fi
  in_box cat /usr/share/doc/starling/events.schema.json >"$folder/schema"
  expect "$box: every line is as published, and none is lost" "$(judge | tail -n 1)" quietly judge
  if ! quietly judge; then judge >&2; fi
  # What passes a journal with a hole passes all.
  sed -i "$(grep -n '"STARLING_SEQ":"2"' "$folder/journal" | head -n 1 | cut -d : -f 1)d" "$folder/journal"
  expect "$box: a lost line would be noticed" "$(judge | tail -n 1)" not quietly judge
}
# shellcheck disable=SC2154 # Set by try-systemd.
judge() { perl "$here/journal.pl" "$work/$box/schema" <"$work/$box/journal"; }
quietly() { "$@" >/dev/null; }
not() { ! "$@"; }

# ---- asking the box ----

install_it() {
  local began=$EPOCHREALTIME
  if ! in_box dpkg -i /run/package.deb >"$work/$box/dpkg" 2>&1; then
    cat "$work/$box/dpkg" >&2
    die "the package does not install"
  fi
  ok "the package installs" "$(since "$began") s"
}

property() { in_box systemctl show --property "$2" --value "$1"; }
has() { [[ $(property "$1" "$2") == "$3" ]]; }
log() { in_box journalctl --unit "$1" --output cat --no-pager; }
status() { in_box starling status --state-dir "/var/lib/$1" --json 2>/dev/null; }
# The first of that name is the node's own; its peers come later in the line.
field() { grep -oE "\"$1\":[0-9.]+" | head -n 1 | cut -d : -f 2; }
round() { status "$1" | field round || echo 0; }
beyond() { (($(round "$1") > $2)); }
seed_of() { in_box sha256sum "/var/lib/$1/identity.seed" | cut -c 1-16; }
node_of() { status "$1" | grep -oE '"node":"[^"]+"'; }
