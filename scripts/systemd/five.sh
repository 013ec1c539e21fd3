# shellcheck disable=SC2154 # what is not assigned here is in box.sh
# shellcheck shell=bash
# Five machines on five network hosts, as docs/operate.md has it. Sourced by scripts/try-systemd.

# What every node must reach, as scored by its peers on rows that they keep from training. Each has
# eight of the ten classes or so: alone it would not know the rest, whoever scores it.
FIVE_SPLIT='shards=8'
FIVE_ACCURACY_MIN=0.96
# By how much the worst of the five must beat what they know alone.
FIVE_GAIN_MIN=0.1
# By then the scores of the first rounds are forgotten.
FIVE_ROUNDS_MIN=600
FIVE_PATIENCE_S=240
machines=(host1 host2 host3 host4 host5)

try_five() {
  local machine pid number=0 ticket pids=() began=$EPOCHREALTIME
  make_switch
  for machine in "${machines[@]}"; do boot "$machine"; done
  for machine in "${machines[@]}"; do
    on "$machine" ready
    on "$machine" plug "$((++number))"
  done
  # Most of it is waiting for the disk.
  for machine in "${machines[@]}"; do on "$machine" install_it >/dev/null & pids+=($!); done
  for pid in "${pids[@]}"; do wait "$pid" || die "the package does not install"; done
  ok "five machines boot, on a network, with the package" "$(since "$began") s"

  began=$EPOCHREALTIME
  local data=(--data digits --split "$FIVE_SPLIT" --listen /ip4/0.0.0.0/tcp/4001)
  on host1 in_box starling init --part 1/5 --age-max 0 "${data[@]}" >/dev/null
  on host1 in_box systemctl enable --quiet --now starling
  ticket=$(on host1 in_box starling invite --uses 4)
  for number in 2 3 4 5; do
    on "host$number" in_box starling join "$ticket" --part "$number/5" "${data[@]}" >/dev/null
    on "host$number" in_box systemctl enable --quiet --now starling
  done
  ok "one network made, four joined by ticket, all enabled" "$(since "$began") s"
  check_five_learn
  check_five_kill
  for machine in "${machines[@]}"; do on "$machine" check_journal; done
  if ((failures > 0)); then on host1 in_box journalctl --no-pager --lines 60 | cut -c 1-240 >&2; fi
}

# What the same five shares teach without a network, in the mean; judged on rows that nobody has.
alone() {
  in_box starling demo --nodes 5 --split "$FIVE_SPLIT" --fast --json 2>/dev/null |
    grep '"event":"demo.verdict"' | field accuracy_local_only
}

accuracy() { status starling | field cross_accuracy || true; }

# Of the last 64 scores, each of which a peer gives at every eighth exchange.
all_accurate() {
  local machine
  for machine in "${machines[@]}"; do
    (($(on "$machine" round starling) >= FIVE_ROUNDS_MIN)) &&
      at_least "$(on "$machine" accuracy)" "$FIVE_ACCURACY_MIN" || return 1
  done
}

check_five_learn() {
  local began=$EPOCHREALTIME machine lone figure=''
  wait_for "accuracy $FIVE_ACCURACY_MIN on all" "$FIVE_PATIENCE_S" all_accurate || true
  for machine in "${machines[@]}"; do
    figure="$figure $(on "$machine" accuracy | cut -c 1-5)"
  done
  expect "all five reach $FIVE_ACCURACY_MIN, scored by peers on their rows" \
    "$(since "$began") s:$figure" all_accurate
  lone=$(on host5 alone || true)
  expect "alone, their shares teach them less" "$lone" at_most "$lone" \
    "$(awk -v least="$FIVE_ACCURACY_MIN" -v gain="$FIVE_GAIN_MIN" 'BEGIN { print least - gain }')"
  figure=$(on host1 property starling StatusText)
  expect "systemctl status says it in a line" "$figure" grep -qE \
    '^train: round [0-9]+, 4 peers, loss [0-9.]+, accuracy 9[0-9.]+ %$' <<<"$figure"
  printf '\n'
  on host1 in_box systemctl status --lines 3 starling || true
  printf '\n'
  on host3 in_box starling peers
  printf '\n'
  expect "each is linked with the four others, over the network" "" linked_over_the_network
}

# Every machine is linked with the four others.
linked_over_the_network() {
  local machine
  for machine in "${machines[@]}"; do
    (($(on "$machine" in_box starling peers --json | grep -oE '"linked":true' | wc -l) == 4)) ||
      return 1
  done
}

check_five_kill() {
  local pid began=$EPOCHREALTIME
  on host3 in_box starling checkpoint >/dev/null
  pid=$(on host3 property starling MainPID)
  on host3 in_box kill -9 "$pid"
  wait_for "the restart" "$PATIENCE_S" on host3 went_on starling "$pid" || true
  expect "kill -9 on one of the five: systemd restarts it" \
    "NRestarts=$(on host3 property starling NRestarts), back at work in $(since "$began") s" \
    on host3 went_on starling "$pid"
  wait_for "the five" "$PATIENCE_S" linked_over_the_network || true
  expect "and all five are linked again" "$(since "$began") s" linked_over_the_network
}
