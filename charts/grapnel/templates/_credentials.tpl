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

{{/* The connections that the bundled PostgreSQL accepts. */}}
{{- define "grapnel.bundledConnections" -}}200{{- end -}}

{{/* The workers that these carry: an api pod has up to 10, a management pod 8, a worker 14, and 20 are for the controller, the migration and
operators. */}}
{{- define "grapnel.bundledWorkers" -}}
{{- $rest := sub (sub (include "grapnel.bundledConnections" . | int) 20) (add (mul 10 (int .Values.api.replicas)) (mul 8 (int .Values.manage.replicas))) -}}
{{- max 1 (div $rest 14) -}}
{{- end -}}

{{/* The most workers of a namespace. */}}
{{- define "grapnel.maxWorkersPerNamespace" -}}
{{- if not (kindIs "invalid" .Values.controller.maxWorkersPerNamespace) -}}
{{- int .Values.controller.maxWorkersPerNamespace -}}
{{- else if include "grapnel.isBundled" (list . "postgres") -}}
{{- include "grapnel.bundledWorkers" . -}}
{{- else -}}
100
{{- end -}}
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

{{/* Nothing if there is no management key. */}}
{{- define "grapnel.managementVariables" -}}
{{- $c := .Values.credentials.managementKey -}}
{{- if $c.enabled -}}
{{- $secret := $c.existingSecret | default (include "grapnel.secretName" .) -}}
{{ include "grapnel.secretVariable" (list "MANAGEMENT_API_KEY" $secret (ternary $c.key "management-key" (ne $c.existingSecret ""))) }}
{{- if and $c.existingSecret $c.previousKey }}
{{ include "grapnel.secretVariable" (list "MANAGEMENT_API_KEY_PREVIOUS" $secret $c.previousKey) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* "true" if the console is served. Without generated credentials, it is where its key is given. */}}
{{- define "grapnel.hasConsole" -}}
{{- $c := .Values.manage.console -}}
{{- if and $c.enabled (or $c.sealingKey.existingSecret .Values.credentials.generate) }}true{{ end -}}
{{- end -}}

{{/* What the console needs; nothing if it is not served. */}}
{{- define "grapnel.consoleVariables" -}}
{{- $c := .Values.manage.console -}}
{{- if include "grapnel.hasConsole" . -}}
{{ include "grapnel.secretVariable" (list "GRAPNEL_CONSOLE_SEALING_KEY" ($c.sealingKey.existingSecret | default (include "grapnel.secretName" .)) (ternary $c.sealingKey.key "console-sealing-key" (ne $c.sealingKey.existingSecret ""))) }}
{{- with $c.prefix }}
- name: GRAPNEL_CONSOLE_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- if $c.identityProxies }}
- name: GRAPNEL_IDENTITY_PROXIES
  value: {{ join "," $c.identityProxies | quote }}
{{ include "grapnel.secretVariable" (list "GRAPNEL_IDENTITY_PROXY_SECRET" $c.identityProxySecret.existingSecret $c.identityProxySecret.key) }}
- name: GRAPNEL_IDENTITY_USER_HEADER
  value: {{ $c.identityHeaders.user | quote }}
- name: GRAPNEL_IDENTITY_GROUPS_HEADER
  value: {{ $c.identityHeaders.groups | quote }}
{{- end }}
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
{{- if and .Values.credentials.managementKey.enabled (not .Values.credentials.managementKey.existingSecret) -}}
{{- $generated = append $generated "management-key" -}}
{{- end -}}
{{- if not .Values.credentials.sealingKeys.existingSecret -}}
{{- $generated = append $generated "sealing-keys" -}}
{{- end -}}
{{- if and (include "grapnel.hasConsole" .) (not .Values.manage.console.sealingKey.existingSecret) -}}
{{- $generated = append $generated "console-sealing-key" -}}
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
{{- else if or (eq $key "sealing-keys") (eq $key "console-sealing-key") -}}
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
