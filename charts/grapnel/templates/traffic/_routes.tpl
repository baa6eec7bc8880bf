{{/* Routes paths to the api or the management pods. Takes (list $ side role paths); side is webhooks or management, role api or manage. */}}
{{- define "grapnel.routes" -}}
{{- $ := index . 0 -}}
{{- $side := index . 1 -}}
{{- $role := index . 2 -}}
{{- $paths := index . 3 -}}
{{- $values := index $.Values $side -}}
{{- $name := printf "%s-%s" (include "grapnel.name" $) $side -}}
{{- $labels := include "grapnel.labels" (list $ $role) -}}
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
            name: {{ include "grapnel.name" $ }}-{{ $role }}
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
    - name: {{ include "grapnel.name" $ }}-{{ $role }}
      port: {{ (index $.Values $role).service.port }}
---
{{- end }}
{{- end }}
{{- end -}}
