# shellcheck disable=SC2154 # what is not assigned here is in box.sh
# shellcheck shell=bash
# Every command of the operators' pages, word for word and in their order, on three machines, with
# what the main ones must say. Sourced
# by scripts/try-systemd.

pages=(operate monitor)
# Fewer than this and they were not found: 87 when it was written.
commands_min=80
# What operate.md promises for the first network.
recipe_max=10
# What the pages name but a box cannot show: another machine, a browser, and this very script. The
# last stand elsewhere in the pages with all that they need.
elsewhere='^(scripts/.*|ssh .*|starling demo --dashboard|starling (init|join|ban)|systemctl reload)$'
ran=0

try_book() {
  local machine page began=$EPOCHREALTIME
  make_switch
  for machine in host1 host2 host3; do boot "$machine"; done
  for machine in host1 host2 host3; do
    on "$machine" ready
    on "$machine" plug "${machine#host}"
    on "$machine" give_package
  done
  ok "three machines boot, on a network" "$(since "$began") s"
  box=host1 ticket='' removal=()
  on host2 in_box useradd anna
  for page in "${pages[@]}"; do
    if [[ $page = monitor ]]; then remove_and_begin_anew; fi
    while read -r line; do follow "$line" <&3; done 3<&0 < <(perl "$here/commands.pl" "$here/../../docs/$page.md")
  done
  for machine in host1 host2 host3; do on "$machine" check_journal; done
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
  local line=$1 patience
  case $line in
    '# a new machine'*) box=host3 && return ;;
    '# the first machine'*)
      if [[ $box = host3 ]]; then check_recipe; fi
      box=host1 && return
      ;;
    '# the second machine'*) box=host2 && return ;;
    # The pages go on after that.
    'apt-get remove'* | 'apt-get purge'*) removal+=("$line") && return ;;
  esac
  if grep -qE "$elsewhere" <<<"$line"; then return; fi
  prepare "$line"
  case $line in
    # What one command leaves in the shell for the next.
    TICKET=*) line="$line; declare -p TICKET >/root/kept" ;;
    *\$TICKET*) line=". /root/kept; $line" ;;
    *TICKET*) line=${line/TICKET/$ticket} ;;
    *NAME*) line=${line/NAME/anna} ;;
    *PEER*) line=${line/PEER/$(partner)} ;;
    *1Nft9HyQ6X*) line=${line/1Nft9HyQ6X/$(partner | tail -c 11)} ;;
    *HyQ6X*) line=${line/HyQ6X/$(node_of starling-2 | tail -c 7 | head -c 5)} ;;
    'starling logs -f'*) line="timeout 2 $line || [ \$? = 124 ]" ;;
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
  patience=0
  if [[ $1 =~ $asks ]]; then patience=$PATIENCE_S; fi
  if wait_for "$1" "$patience" says "$(wanted "$1")" "$line"; then
    ok "$(cut -c 1-58 <<<"$1")" "$(said_of "$1")"
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

# says PATTERN LINE: the line ends well, and says so.
says() {
  in_box bash -o pipefail -c "cd /root && $2" >"$work/$box/said" 2>&1 || return 1
  [[ -z $1 ]] || grep -qE -- "$1" "$work/$box/said"
}

# The line that was wanted, if one was.
said_of() {
  local pattern
  pattern=$(wanted "$1")
  if [[ -n $pattern ]]; then grep -m 1 -E -- "$pattern" "$work/$box/said" | cut -c 1-60; fi
}

# Commands that only ask: what they are to say may come to be true a moment later.
asks='^(starling (status|peers|limits|privacy|check|logs)|curl|journalctl|systemctl status)( |$)'

# What a command must print; anything will do for those that are silent when they succeed.
wanted() {
  case $1 in
    *--watch*) echo '' ;;
    'starling status --json') echo '"phase":"(train|done)"' ;;
    'starling status'*) echo '^phase +(train|done), round [0-9]+' ;;
    'starling peers') echo '^12D3[A-Za-z0-9]+ +linked ' ;;
    'starling limits') echo '^links +[0-9]+ of [0-9]+$' ;;
    'starling privacy') echo '^stays +rows and labels$' ;;
    'starling invite') echo '^starling1[a-z0-9]{100,}$' ;;
    'starling init'* | 'starling join'*) echo '^next +(starling run|systemctl enable --now starling)' ;;
    'starling ban '*) echo '  banned$' ;;
    'starling unban '*) echo '  not banned any more$' ;;
    'starling checkpoint') echo '^saved +generation [0-9]+, round [0-9]+' ;;
    'starling pause') echo '^paused ' ;;
    'starling resume') echo '^training$' ;;
    'starling reload') echo '^unchanged$' ;;
    'starling leave') echo '^left +generation [0-9]+' ;;
    'starling check') echo '^ok +key: 12D3' ;;
    *' starling run') echo '"event":"serve.started"' ;;
    'starling logs'*round.completed*) echo $'^[0-9]+\t[0-9.]+\t' ;;
    'starling logs'*warn*) echo '^[-0-9]+ [0-9:]+ (WARN|ERROR) +[a-z]+\.[a-z_]+' ;;
    'starling logs'*"'peer."*) echo '^[-0-9]+ [0-9:]+ [A-Z]+ +peer\.[a-z_]+ +peer=' ;;
    'starling logs'*) echo '^[-0-9]+ [0-9:]+ [A-Z]+ +[a-z]+\.[a-z_]+' ;;
    'journalctl -u starling -p warning') echo '"severity":"(WARN|ERROR)"' ;;
    'journalctl STARLING_EVENT=peer.banned'*) echo '^\{.*"event":"peer.banned"' ;;
    'journalctl -u starling -g'*) echo 'daemon\.stopped' ;;
    'journalctl'*) echo '"event":"[a-z]+\.' ;;
    'systemctl status starling') echo 'Status: "(join|train|done): round [0-9]+' ;;
    'curl '*readyz) echo '"ready":(true|false)' ;;
    'curl '*metrics*) echo '^starling_peers\{state="linked"\} 2$' ;;
    'ss '*) echo LISTEN ;;
    'df '*) echo '%' ;;
    *) echo '' ;;
  esac
}

# The first network of the page: few commands, three nodes that learn together, and all are seen.
check_recipe() {
  expect "they were $recipe_max commands at most" "$ran" at_most "$ran" "$recipe_max"
  wait_for "three that merge" "$PATIENCE_S" all_merge || true
  expect "three nodes that learn together, each with its metrics" \
    "$(merged | xargs) models merged" all_merge
  expect "and each with its dashboard" "" all_show
}
merged() {
  in_box curl -s 'localhost:946[4-6]/metrics' |
    sed -n 's/^starling_updates_received_total{result="accepted"} //p'
}
all_merge() { (($(merged | awk '$1 > 20' | wc -l) == 3)); }
all_show() { (($(in_box curl -s 'localhost:946[4-6]/' | grep -c '<title>Starling</title>') == 3)); }

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
