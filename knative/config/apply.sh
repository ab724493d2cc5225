#!/usr/bin/env bash
# What an administrator tells Knative of a cluster of Pis, once: knative/config/apply.sh
#
# Everything else is left as it is; every setting is known from Knative 1.8 to 1.21. `config-features` needs
# none: the manifests have no field that is behind a flag. All of it is optional while Knative's own defaults
# are in place; the reasons are in the files.
set -euo pipefail
cd "$(dirname "$0")"

patch() { kubectl patch --namespace knative-serving "$@"; }

if kubectl get --namespace knative-serving knativeserving/knative-serving >/dev/null 2>&1; then
  # Installed by the operator, as microk8s does it.
  patch knativeserving/knative-serving --type merge --patch-file operator.yaml
else
  for name in autoscaler defaults deployment; do
    patch "configmap/config-$name" --type merge --patch-file "$name.yaml"
  done
fi
