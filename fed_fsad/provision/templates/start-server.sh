#!/bin/sh
# Starts the server of the federation "{{ name }}" in the background. Stop it with: fed-fsad server stop FOLDER
set -eu
cd "$(dirname "$0")"
exec fed-fsad server start .
