{{/*
Where each credential is kept: in a Secret of the user (existingSecret), or in the Secret of the release, under the name below.
A credential of the latter comes from the values, from the previous revision, or is generated.
*/}}

{{- define "grapnel.secretName" -}}{{ include "grapnel.name" . }}-credentials{{- end -}}

{{/* "true" if the chart runs the datastore itself. Takes (list $ datastore). */}}
{{- define "grapnel.isBundled" -}}
{{- $ := index . 0 -}}
{{- $external := index $.Values.external (index . 1) -}}
{{- if not (or $external.url $external.existingSecret) }}true{{ end -}}
{{- end -}}

{{/* An environment variable that is read from a Secret. Takes (list NAME secret key). */}}
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
The contents of the Secret of the release, as YAML. Each credential is generated in one place only, so that it has one value in
a rendering. The checksum in the pods does not cover generated credentials.
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
{{- fail (printf "credentials.generate is false, and the credential %s is not set: see credentials.*.existingSecret and external.*" $key) -}}
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

{{/* A checksum that changes with the credentials in the values. Generated credentials do not change. */}}
{{- define "grapnel.credentialsChecksum" -}}
{{- list .Values.external .Values.credentials | toJson | sha256sum -}}
{{- end -}}
