{{/* DNS at any address: some clusters serve it on a link-local address of the node. */}}
{{- define "grapnel.dnsEgress" -}}
- ports:
  - {protocol: UDP, port: 53}
  - {protocol: TCP, port: 53}
{{- end -}}

{{/* The API server has no labels, and its port behind the Service differs from cluster to cluster. */}}
{{- define "grapnel.apiServerEgress" -}}
- ports:
  - {protocol: TCP, port: 443}
  - {protocol: TCP, port: 6443}
  - {protocol: TCP, port: 8443}
{{- end -}}

{{/* A datastore: the bundled pod, or the external address. Takes (list $ store ports). */}}
{{- define "grapnel.storeEgress" -}}
{{- $ := index . 0 -}}
{{- $store := index . 1 -}}
- ports:
  {{- range index . 2 }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
  {{- if include "grapnel.isBundled" (list $ $store) }}
  to:
  - podSelector:
      matchLabels: {{- include "grapnel.selector" (list $ $store) | nindent 8 }}
  {{- else if $.Values.networkPolicy.datastoresTo }}
  to: {{- toYaml $.Values.networkPolicy.datastoresTo | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The ports of a datastore, as JSON. Takes (list $ store). */}}
{{- define "grapnel.storePorts" -}}
{{- $ := index . 0 -}}
{{- $store := index . 1 -}}
{{- $external := index $.Values.external $store -}}
{{- $ports := list -}}
{{- if include "grapnel.isBundled" (list $ $store) -}}
{{- $ports = index (dict "postgres" (list 5432) "redis" (list 6379) "rabbitmq" (list 5672)) $store -}}
{{- else -}}
{{- $ports = list (int $external.port) -}}
{{- end -}}
{{- toJson $ports -}}
{{- end -}}

{{- define "grapnel.managementPort" -}}
{{- if include "grapnel.isBundled" (list . "rabbitmq") }}15672{{ else }}{{ .Values.external.rabbitmq.managementPort }}{{ end -}}
{{- end -}}

{{/* The operations port, for Prometheus. The kubelet's probes are always allowed. */}}
{{- define "grapnel.metricsIngress" -}}
- ports:
  - {protocol: TCP, port: 9090}
  {{- with .Values.networkPolicy.metricsFrom }}
  from: {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
