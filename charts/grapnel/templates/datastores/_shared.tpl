{{/* The Service of a bundled datastore. Takes (list $ store ports); ports maps names to numbers. */}}
{{- define "grapnel.storeService" -}}
{{- $ := index . 0 -}}
{{- $store := index . 1 -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "grapnel.name" $ }}-{{ $store }}
  namespace: {{ $.Release.Namespace }}
  labels: {{- include "grapnel.labels" (list $ $store) | nindent 4 }}
spec:
  selector: {{- include "grapnel.selector" (list $ $store) | nindent 4 }}
  ports:
  {{- range $name, $port := index . 2 }}
  - {name: {{ $name }}, port: {{ $port }}, targetPort: {{ $name }}}
  {{- end }}
{{- end -}}

{{/* The volume claim of a StatefulSet, which outlives the release. Takes (list $ store). */}}
{{- define "grapnel.storeClaim" -}}
{{- $ := index . 0 -}}
{{- $storage := (index $.Values.bundled (index . 1)).storage -}}
- metadata:
    name: data
  spec:
    accessModes: [ReadWriteOnce]
    {{- with $storage.className }}
    storageClassName: {{ . }}
    {{- end }}
    resources:
      requests: {storage: {{ $storage.size }}}
{{- end -}}
