#!/bin/sh
# Makes this host start {{ unit }} by itself and again whenever it ends. As root, fed-fsad on the PATH:
#   ./install-service.sh          writes the unit into /etc/systemd/system and starts it
#   ./install-service.sh FOLDER   only writes the unit into FOLDER, to be read first
# The service runs as the owner of this folder, who should be a user of its own.
set -eu
stop() { echo "error: $1" >&2; exit 1; }
kit="$(cd "$(dirname "$0")" && pwd)"
command="$(command -v fed-fsad)" || stop "fed-fsad is not on the PATH; activate its environment first"
owner="$(stat -c %U "$kit")"
[ "$owner" != root ] || stop "$kit belongs to root; give it to a user of its own: chown -R USER $kit"
case "$kit$command" in *[!A-Za-z0-9_./-]*) stop "systemd wants plain paths: move $kit or $command" ;; esac
folder="${1:-/etc/systemd/system}"
sed -e "s|@KIT@|$kit|g" -e "s|@COMMAND@|$command|g" -e "s|@OWNER@|$owner|g" "$kit/{{ unit }}" > "$folder/{{ unit }}"
echo "wrote $folder/{{ unit }}, which runs as $owner"
[ $# -gt 0 ] || { systemctl daemon-reload; systemctl enable --now {{ unit }}; }
