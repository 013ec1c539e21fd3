# shellcheck disable=SC2154 # what is not assigned here is in box.sh
# shellcheck shell=bash
# Every command of the operators' pages, word for word and in their order, on two machines. Sourced
# by scripts/try-systemd.

pages=(operate monitor)
# Fewer than this and they were not found: 78 when it was written.
commands_min=70
# What the pages name but a box cannot show: another machine, a browser, and this very script. The
# last stand elsewhere in the pages with all that they need.
elsewhere='^(scripts/.*|ssh .*|starling demo --dashboard|starling (init|join|ban)|systemctl reload)$'
ran=0

try_book() {
  local machine page began=$EPOCHREALTIME
  make_switch
  for machine in host1 host2; do boot "$machine"; done
  for machine in host1 host2; do
    on "$machine" ready
    on "$machine" plug "${machine#host}"
    on "$machine" give_package
  done
  ok "two machines boot, on a network" "$(since "$began") s"
  box=host1 ticket='' removal=()
  on host2 in_box useradd anna
  for page in "${pages[@]}"; do
    if [[ $page = monitor ]]; then remove_and_begin_anew; fi
    while read -r line; do follow "$line" <&3; done 3<&0 < <(perl "$here/commands.pl" "$here/../../docs/$page.md")
  done
  expect "every command of the pages was run" "$ran" at_least "$ran" "$commands_min"
  if ((failures > 0)); then in_box journalctl --no-pager --lines 60 | cut -c 1-240 >&2; fi
}

# Under the name that the pages give it, if they are up to date.
give_package() {
  local version
  # shellcheck disable=SC2016 # dpkg-deb expands it
  version=$(dpkg-deb --show --showformat '${Version}_${Architecture}' "$work/package.deb")
  in_box cp /run/package.deb "/root/starling_$version.deb"
}

# follow LINE: runs it on the machine that the page is about.
follow() {
  local line=$1
  case $line in
    '# the first machine'*) box=host1 && return ;;
    '# the second machine'*) box=host2 && return ;;
    # The pages go on after that.
    'apt-get remove'* | 'apt-get purge'*) removal+=("$line") && return ;;
  esac
  if grep -qE "$elsewhere" <<<"$line"; then return; fi
  prepare "$line"
  case $line in
    *TICKET*) line=${line/TICKET/$ticket} ;;
    *NAME*) line=${line/NAME/anna} ;;
    *PEER*) line=${line/PEER/$(partner)} ;;
    *1Nft9HyQ6X*) line=${line/1Nft9HyQ6X/$(partner | tail -c 11)} ;;
    *HyQ6X*) line=${line/HyQ6X/$(node_of starling-2 | tail -c 7 | head -c 5)} ;;
    'starling logs -f'*) line="timeout 2 $line | grep -q ." ;;
    *--watch*)
      line="(sleep 2; printf q) | script -qec 'stty rows 40 cols 120; $line' /dev/null"
      line="$line | grep -q 'round'"
      ;;
    # By hand: the files are still those of the user.
    *' starling run')
      line="timeout --preserve-status 4 setpriv --reuid starling --regid starling --clear-groups \
        env $line"
      ;;
  esac
  if in_box bash -o pipefail -c "cd /root && $line" >"$work/$box/said" 2>&1; then
    ok "$(cut -c 1-58 <<<"$1")" ''
  else
    expect "$1" "$(tail -n 2 "$work/$box/said" | cut -c 1-200)" false
  fi
  ran=$((ran + 1))
  case $1 in
    'starling invite') ticket=$(tail -n 1 "$work/$box/said") ;;
    # The second page is about one node.
    'starling unban'* | 'systemctl start starling')
      if [[ $page = operate ]]; then back_in_the_flock; fi
      ;;
  esac
}

# What a page takes for granted at this place.
prepare() {
  case $1 in
    *metrics.socket*)
      in_box test -e /etc/systemd/system/starling-metrics.socket || in_box cp \
        /usr/share/doc/starling/examples/starling-metrics.socket /etc/systemd/system/
      in_box systemctl daemon-reload
      ;;
    'starling '[ij]*data* | 'starling check') ;;
    'starling '* | 'systemctl reload'* | 'systemctl status'* | curl*)
      in_box test -e /var/lib/starling/network.toml || return 0
      in_box systemctl start starling
      wait_for "an answer" "$PATIENCE_S" status starling >/dev/null
      ;;
  esac
}

# The id of the node on the first machine, which is asked on the second.
partner() { on host1 node_of starling | cut -d '"' -f 4; }

back_in_the_flock() {
  wait_for "the flock" "$PATIENCE_S" linked_with_partner || true
  expect "back in the flock" "$(node_of starling | tail -c 12 | head -c 10)" linked_with_partner
}
linked_with_partner() { in_box starling peers --json | grep -q "$(partner)\",*[^}]*\"linked\":true"; }

# What the first page says of the end, and then a machine for the next.
remove_and_begin_anew() {
  local line
  for line in "${removal[@]}"; do
    expect "$line" "" in_box sh -c "${line/apt-get/apt-get -y} >/dev/null 2>&1"
    expect "the program is gone" "" not in_box test -e /usr/bin/starling
    case $line in
      *remove*) expect "its state is not" "" in_box test -e /var/lib/starling/identity.seed ;;
      *purge*) expect "nor is its state left" "" not in_box test -e /var/lib/starling ;;
    esac
    ran=$((ran + 1))
  done
  in_box sh -c 'apt-get install -y /root/starling_*.deb' >"$work/$box/said" 2>&1
}
