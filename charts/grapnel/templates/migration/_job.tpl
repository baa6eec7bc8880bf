{{- define "grapnel.migrationSpec" -}}
backoffLimit: {{ .Values.migration.backoffLimit }}
template:
  metadata:
    labels: {{- include "grapnel.podLabels" (list . "migration" dict) | nindent 6 }}
  spec:
    restartPolicy: OnFailure
    serviceAccountName: {{ include "grapnel.runtimeAccount" . }}
    automountServiceAccountToken: false
    {{- include "grapnel.podBasics" (list . .Values.migration 65532) | nindent 4 }}
    containers:
    - name: migrate
      image: {{ include "grapnel.image" (list . .Values.images.runtime) }}
      imagePullPolicy: {{ .Values.images.pullPolicy }}
      args: [migrate, --wait-seconds, {{ .Values.migration.waitSeconds | int | quote }}]
      env:
      {{- include "grapnel.commonVariables" . | nindent 6 }}
      {{- include "grapnel.databaseVariable" . | nindent 6 }}
      resources: {{- toYaml .Values.migration.resources | nindent 8 }}
      securityContext: {{- include "grapnel.containerSecurity" . | nindent 8 }}
{{- end -}}
