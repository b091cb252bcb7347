#!/bin/sh
# Runs Debian's mosquitto in the place of the broker under test: BLACKBOX_BROKER='tests/blackbox/mosquitto.sh {port} {dir}'
# A scenario that fails here too is probably wrong itself.
set -eu
PATH="$PATH:/usr/sbin:/usr/local/sbin"
cat >"$2/mosquitto.conf" <<CONF
listener $1 127.0.0.1
allow_anonymous true
max_packet_size 1048576
max_queued_messages 10000
max_inflight_messages 1024
sys_interval 1
CONF
exec mosquitto -v -c "$2/mosquitto.conf"
