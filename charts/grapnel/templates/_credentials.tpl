{{/*
Where each credential is. A credential is in a Secret of the user's (existingSecret), or in the Secret of the release under the
name below; what is in the latter is given in the values, kept from the last release, or generated.
*/}}

{{- define "grapnel.secretName" -}}{{ include "grapnel.name" . }}-credentials{{- end -}}

{{/* A datastore that the chart runs itself. Takes (list $ datastore). */}}
{{- define "grapnel.isBundled" -}}
{{- $ := index . 0 -}}
{{- $external := index $.Values.external (index . 1) -}}
{{- if not (or $external.url $external.existingSecret) }}true{{ end -}}
{{- end -}}

{{/* An environment variable from a Secret. Takes (list NAME secret key). */}}
{{- define "grapnel.secretVariable" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end -}}

{{- define "grapnel.databaseVariable" -}}
{{- $e := .Values.external.postgres -}}
{{- $secret := $e.existingSecret | default (include "grapnel.secretName" .) -}}
{{ include "grapnel.secretVariable" (list "DATABASE_URL" $secret (ternary $e.urlKey "database-url" (ne $e.existingSecret ""))) }}
{{- end -}}

{{- define "grapnel.redisVariable" -}}
{{- $e := .Values.external.redis -}}
{{- $secret := $e.existingSecret | default (include "grapnel.secretName" .) -}}
{{ include "grapnel.secretVariable" (list "REDIS_URL" $secret (ternary $e.urlKey "redis-url" (ne $e.existingSecret ""))) }}
{{- end -}}

{{- define "grapnel.rabbitmqVariable" -}}
{{- $e := .Values.external.rabbitmq -}}
{{- $secret := $e.existingSecret | default (include "grapnel.secretName" .) -}}
{{ include "grapnel.secretVariable" (list "RABBITMQ_URL" $secret (ternary $e.urlKey "rabbitmq-url" (ne $e.existingSecret ""))) }}
{{- end -}}

{{- define "grapnel.rabbitmqManagementVariable" -}}
{{- $e := .Values.external.rabbitmq -}}
{{- $secret := $e.existingSecret | default (include "grapnel.secretName" .) -}}
{{ include "grapnel.secretVariable" (list "RABBITMQ_MANAGEMENT_URL" $secret (ternary $e.managementUrlKey "rabbitmq-management-url" (ne $e.existingSecret ""))) }}
{{- end -}}

{{- define "grapnel.sealingVariable" -}}
{{- $c := .Values.credentials.sealingKeys -}}
{{ include "grapnel.secretVariable" (list "GRAPNEL_SEALING_KEYS" ($c.existingSecret | default (include "grapnel.secretName" .)) (ternary $c.key "sealing-keys" (ne $c.existingSecret ""))) }}
{{- end -}}

{{- define "grapnel.managementVariables" -}}
{{- $c := .Values.credentials.managementKey -}}
{{- $secret := $c.existingSecret | default (include "grapnel.secretName" .) -}}
{{ include "grapnel.secretVariable" (list "MANAGEMENT_API_KEY" $secret (ternary $c.key "management-key" (ne $c.existingSecret ""))) }}
{{- if and $c.existingSecret $c.previousKey }}
{{ include "grapnel.secretVariable" (list "MANAGEMENT_API_KEY_PREVIOUS" $secret $c.previousKey) }}
{{- end }}
{{- end -}}

{{/*
The contents of the Secret of the release, as YAML. Each generated word is asked for in one place, so that a rendering has one
value for it; the rendering that a pod checksum is made of leaves them out.
*/}}
{{- define "grapnel.secretData" -}}
{{- $there := (lookup "v1" "Secret" .Release.Namespace (include "grapnel.secretName" .)).data | default dict -}}
{{- $data := dict -}}
{{- $generated := list -}}
{{- if not .Values.credentials.managementKey.existingSecret -}}
{{- $generated = append $generated "management-key" -}}
{{- end -}}
{{- if not .Values.credentials.sealingKeys.existingSecret -}}
{{- $generated = append $generated "sealing-keys" -}}
{{- end -}}
{{- range $store := list "postgres" "redis" "rabbitmq" -}}
{{- if include "grapnel.isBundled" (list $ $store) -}}
{{- $generated = append $generated (printf "%s-password" $store) -}}
{{- end -}}
{{- end -}}
{{- range $key := $generated -}}
{{- if hasKey $there $key -}}
{{- $_ := set $data $key (index $there $key | b64dec) -}}
{{- else if not $.Values.credentials.generate -}}
{{- fail (printf "credentials.generate is false, and nothing gives the credential %s: see credentials.*.existingSecret and external.*" $key) -}}
{{- else if eq $key "sealing-keys" -}}
{{- $_ := set $data $key (printf "first:%s" (randBytes 32)) -}}
{{- else -}}
{{- $_ := set $data $key (randAlphaNum 32) -}}
{{- end -}}
{{- end -}}
{{- $name := include "grapnel.name" . -}}
{{- $e := .Values.external -}}
{{- if include "grapnel.isBundled" (list . "postgres") -}}
{{- $_ := set $data "database-url" (printf "postgres://grapnel:%s@%s-postgres:5432/grapnel" (index $data "postgres-password") $name) -}}
{{- else if $e.postgres.url -}}
{{- $_ := set $data "database-url" $e.postgres.url -}}
{{- end -}}
{{- if include "grapnel.isBundled" (list . "redis") -}}
{{- $_ := set $data "redis-url" (printf "redis://default:%s@%s-redis:6379/0" (index $data "redis-password") $name) -}}
{{- else if $e.redis.url -}}
{{- $_ := set $data "redis-url" $e.redis.url -}}
{{- end -}}
{{- if include "grapnel.isBundled" (list . "rabbitmq") -}}
{{- $_ := set $data "rabbitmq-url" (printf "amqp://grapnel:%s@%s-rabbitmq:5672/%%2f" (index $data "rabbitmq-password") $name) -}}
{{- $_ := set $data "rabbitmq-management-url" (printf "http://%s-rabbitmq:15672" $name) -}}
{{- else if $e.rabbitmq.url -}}
{{- $_ := set $data "rabbitmq-url" $e.rabbitmq.url -}}
{{- $_ := set $data "rabbitmq-management-url" (required "external.rabbitmq.managementUrl is needed with external.rabbitmq.url" $e.rabbitmq.managementUrl) -}}
{{- end -}}
{{- toYaml $data -}}
{{- end -}}

{{/* Changes when a credential in the values changes; what is generated does not change. */}}
{{- define "grapnel.credentialsChecksum" -}}
{{- list .Values.external .Values.credentials | toJson | sha256sum -}}
{{- end -}}
