{{/* Rules that the schema of the values cannot express. */}}
{{- define "grapnel.checks" -}}
{{- range $store := list "postgres" "redis" "rabbitmq" -}}
{{- $external := index $.Values.external $store -}}
{{- if and $external.url $external.existingSecret -}}
{{- fail (printf "external.%s: give url or existingSecret, not both" $store) -}}
{{- end -}}
{{- if and (include "grapnel.isBundled" (list $ $store)) (not $.Values.bundled.enabled) -}}
{{- fail (printf "bundled.enabled is false, and external.%s has neither url nor existingSecret" $store) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.egress.proxy.url .Values.egress.proxy.existingSecret -}}
{{- fail "egress.proxy: give url or existingSecret, not both" -}}
{{- end -}}
{{- if and .Values.egress.ca.configMap .Values.egress.ca.secret -}}
{{- fail "egress.ca: give configMap or secret, not both" -}}
{{- end -}}
{{- range $side := list "webhooks" "management" -}}
{{- $route := index $.Values $side -}}
{{- if and $route.httpRoute.enabled (not $route.httpRoute.parentRefs) -}}
{{- fail (printf "%s.httpRoute.parentRefs: at least one Gateway is required" $side) -}}
{{- end -}}
{{- end -}}
{{- with .Values.manage.console -}}
{{- if and .identityProxies (not .identityProxySecret.existingSecret) -}}
{{- fail "manage.console.identityProxies needs manage.console.identityProxySecret.existingSecret: addresses alone prove nothing" -}}
{{- end -}}
{{- if and .identityProxies (not $.Values.manage.kubernetesAccess) -}}
{{- fail "manage.console.identityProxies needs manage.kubernetesAccess, which judges the rights of their users" -}}
{{- end -}}
{{- end -}}
{{- if not (or .Values.manage.kubernetesAccess .Values.credentials.managementKey.enabled) -}}
{{- fail "manage.kubernetesAccess and credentials.managementKey.enabled are both false: nobody could use the management routes" -}}
{{- end -}}
{{- $webhooks := .Values.webhooks -}}
{{- if and (or $webhooks.ingress.enabled $webhooks.httpRoute.enabled) (not .Values.api.trustedProxies) -}}
{{- fail "api.trustedProxies: set the networks of the ingress controller or Gateway (those of its pods), because webhooks.ingress or webhooks.httpRoute is enabled. Without them all webhooks count as sent by the proxy, and one sender can use up the limits of all others" -}}
{{- end -}}
{{- if and (include "grapnel.isBundled" (list . "postgres")) (gt (include "grapnel.maxWorkersPerNamespace" . | int) (include "grapnel.bundledWorkers" . | int)) -}}
{{- fail (printf "controller.maxWorkersPerNamespace: at most %s with the bundled PostgreSQL, %d api pods and %d management pods, because it accepts %s connections and each worker uses 14" (include "grapnel.bundledWorkers" .) (int .Values.api.replicas) (int .Values.manage.replicas) (include "grapnel.bundledConnections" .)) -}}
{{- end -}}
{{- end -}}
