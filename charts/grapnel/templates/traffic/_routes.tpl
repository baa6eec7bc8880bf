{{/* Routes paths to the api. Takes (list $ side paths); side is webhooks or management. */}}
{{- define "grapnel.routes" -}}
{{- $ := index . 0 -}}
{{- $side := index . 1 -}}
{{- $paths := index . 2 -}}
{{- $values := index $.Values $side -}}
{{- $name := printf "%s-%s" (include "grapnel.name" $) $side -}}
{{- $labels := include "grapnel.labels" (list $ "api") -}}
{{- with $values.ingress }}
{{- if .enabled }}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ $name }}
  namespace: {{ $.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- if .tlsSecret }}
  tls:
  - secretName: {{ .tlsSecret }}
    {{- with .host }}
    hosts: [{{ . | quote }}]
    {{- end }}
  {{- end }}
  rules:
  - {{ with .host }}host: {{ . | quote }}
    {{ end }}http:
      paths:
      {{- range $paths }}
      - path: {{ . }}
        pathType: Prefix
        backend:
          service:
            name: {{ include "grapnel.name" $ }}-api
            port: {name: http}
      {{- end }}
---
{{- end }}
{{- end }}
{{- with $values.httpRoute }}
{{- if .enabled }}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {{ $name }}
  namespace: {{ $.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  parentRefs: {{- toYaml .parentRefs | nindent 2 }}
  {{- with .hostnames }}
  hostnames: {{- toYaml . | nindent 2 }}
  {{- end }}
  rules:
  - matches:
    {{- range $paths }}
    - path: {type: PathPrefix, value: {{ . }}}
    {{- end }}
    backendRefs:
    - name: {{ include "grapnel.name" $ }}-api
      port: {{ $.Values.api.service.port }}
---
{{- end }}
{{- end }}
{{- end -}}
