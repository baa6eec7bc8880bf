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
{{- range $side := list "webhooks" "management" -}}
{{- $route := index $.Values $side -}}
{{- if and $route.httpRoute.enabled (not $route.httpRoute.parentRefs) -}}
{{- fail (printf "%s.httpRoute.parentRefs: at least one Gateway is required" $side) -}}
{{- end -}}
{{- end -}}
{{- $webhooks := .Values.webhooks -}}
{{- if and (or $webhooks.ingress.enabled $webhooks.httpRoute.enabled) (not .Values.api.trustedProxies) -}}
{{- fail "api.trustedProxies: set the networks of the ingress controller or Gateway (those of its pods), because webhooks.ingress or webhooks.httpRoute is enabled. Without them all webhooks count as sent by the proxy, and one sender can use up the limits of all others" -}}
{{- end -}}
{{- end -}}
