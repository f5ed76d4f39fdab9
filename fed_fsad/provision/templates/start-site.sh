#!/bin/sh
# Starts the site {{ site.name }} in the background. Stop it with: fed-fsad site stop site.yaml
set -eu
cd "$(dirname "$0")"
exec fed-fsad site start site.yaml
