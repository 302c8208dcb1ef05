#!/bin/bash
# Lets Envoy finish what it serves, before Kubernetes ends it.
#
# Envoy fails its readiness, so that no new client is sent here, and asks those that are here to go
# (`connection: close`, GOAWAY). When no request is left, this ends. The grace period of the pod bounds
# it. Envoy's image has no curl: bash speaks to the admin interface itself.
set -u
admin_port="${ADMIN_PORT:-9901}"
# Endpoints of the Service need this long to be gone everywhere.
least="${LEAST_SECONDS:-10}"

ask() { # METHOD PATH
  exec 3<>"/dev/tcp/127.0.0.1/$admin_port" || return 1
  printf '%s %s HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n' "$1" "$2" >&3
  cat <&3
  exec 3>&-
}

ask POST /healthcheck/fail >/dev/null || exit 0
sleep "$least"
while active="$(ask GET '/stats?filter=%5Ehttp%5C.llm%5C.downstream_rq_active%24' |
  sed -n 's/^http.llm.downstream_rq_active: \([0-9]*\).*/\1/p')"; do
  [ "${active:-0}" = 0 ] && exit 0
  sleep 1
done
