{{/* The settings of every pod, which meet the restricted Pod Security Standard. Takes (list $ settings user). */}}
{{- define "grapnel.podBasics" -}}
{{- $ := index . 0 -}}
{{- $settings := index . 1 -}}
enableServiceLinks: false
{{- with $.Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $settings.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- $user := index . 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $user }}
  runAsGroup: {{ $user }}
  fsGroup: {{ $user }}
  {{- /* Always would make RabbitMQ's cookie readable by the group, which RabbitMQ refuses. Not a YAML comment, since the name of
  the migration Job is a hash of its text. */}}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "grapnel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "grapnel.probes" -}}
livenessProbe:
  httpGet: {path: /livez, port: ops}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: ops}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 3
{{- end -}}

{{/* The environment variables of every role. */}}
{{- define "grapnel.commonVariables" -}}
- name: GRAPNEL_ENV
  value: {{ .Values.environment }}
- name: RUST_LOG
  value: {{ .Values.logLevel | quote }}
{{- if .Values.queuePrefix }}
- name: GRAPNEL_QUEUE_PREFIX
  value: {{ .Values.queuePrefix | quote }}
{{- end }}
{{- end -}}
