{{/* The prefix of all object names. Templates append up to 30 characters to it. */}}
{{- define "grapnel.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 33 | trimSuffix "-" -}}
{{- else if contains "grapnel" .Release.Name -}}
{{- .Release.Name | trunc 33 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-grapnel" (.Release.Name | trunc 25 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* The labels of a selector. They never change, since the selector of a Deployment is immutable. Takes (list $ component). */}}
{{- define "grapnel.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: grapnel
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Takes (list $ component). */}}
{{- define "grapnel.labels" -}}
{{- $ := index . 0 -}}
{{ include "grapnel.selector" . }}
app.kubernetes.io/part-of: grapnel
app.kubernetes.io/managed-by: {{ $.Release.Service }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- with $.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The labels of a pod, without the chart's version, which would restart pods that do not change. Takes (list $ component podLabels). */}}
{{- define "grapnel.podLabels" -}}
{{- $ := index . 0 -}}
{{- $own := fromYaml (include "grapnel.selector" .) -}}
{{- toYaml (merge (dict "app.kubernetes.io/part-of" "grapnel") $own (index . 2) $.Values.commonLabels) -}}
{{- end -}}

{{/* The controller creates and labels the workers itself; they have no instance label. */}}
{{- define "grapnel.workerSelector" -}}
app.kubernetes.io/name: grapnel
app.kubernetes.io/component: worker
{{- end -}}

{{/* Takes (list $ image). */}}
{{- define "grapnel.image" -}}
{{- $ := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "grapnel.controllerAccount" -}}
{{- .Values.serviceAccounts.controllerName | default (ternary (printf "%s-controller" (include "grapnel.name" .)) "default" .Values.serviceAccounts.create) -}}
{{- end -}}

{{- define "grapnel.manageAccount" -}}
{{- .Values.serviceAccounts.manageName | default (ternary (printf "%s-manage" (include "grapnel.name" .)) "default" .Values.serviceAccounts.create) -}}
{{- end -}}

{{- define "grapnel.runtimeAccount" -}}
{{- .Values.serviceAccounts.runtimeName | default (ternary (printf "%s-runtime" (include "grapnel.name" .)) "default" .Values.serviceAccounts.create) -}}
{{- end -}}
