{{/* The contents of GRAPNEL_WORKER_POD_FILE. */}}
{{- define "grapnel.workerPod" -}}
image: {{ include "grapnel.image" (list . .Values.images.runtime) }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
{{- with .Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
serviceAccountName: {{ include "grapnel.runtimeAccount" . }}
env:
{{ include "grapnel.commonVariables" . }}
{{ include "grapnel.databaseVariable" . }}
{{ include "grapnel.rabbitmqVariable" . }}
{{ include "grapnel.sealingVariable" . }}
{{- include "grapnel.egressVariables" . }}
{{- with .Values.workers.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- include "grapnel.egressVolumes" . }}
{{- include "grapnel.egressVolumeMounts" . }}
resources: {{ toYaml .Values.workers.resources | nindent 2 }}
{{- with .Values.workers.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.workers.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.workers.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
permitted: {{ toYaml .Values.workers.permitted | nindent 2 }}
{{- end -}}
