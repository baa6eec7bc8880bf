{{/* How the api and the workers reach what others name: destinations, and the URLs of providers. */}}

{{- define "grapnel.hasProxy" -}}
{{- if or .Values.egress.proxy.url .Values.egress.proxy.existingSecret }}true{{ end -}}
{{- end -}}

{{/* "true" if there are certificate authorities of the user's. */}}
{{- define "grapnel.hasAuthorities" -}}
{{- if or .Values.egress.ca.configMap .Values.egress.ca.secret }}true{{ end -}}
{{- end -}}

{{- define "grapnel.egressVariables" -}}
{{- with .Values.allowedDestinationCidrs }}
- name: GRAPNEL_ALLOWED_DESTINATION_CIDRS
  value: {{ join "," . | quote }}
{{- end }}
{{- $denied := .Values.deniedDestinations | default list }}
{{- if include "grapnel.isBundled" (list . "redis") }}
{{- $denied = append $denied (printf "%s-redis:6379" (include "grapnel.name" .)) }}
{{- end }}
{{- with $denied }}
- name: GRAPNEL_DENIED_DESTINATIONS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.egress }}
{{- if .proxy.existingSecret }}
{{ include "grapnel.secretVariable" (list "GRAPNEL_EGRESS_PROXY" .proxy.existingSecret .proxy.urlKey) }}
{{- else if .proxy.url }}
- name: GRAPNEL_EGRESS_PROXY
  value: {{ .proxy.url | quote }}
{{- end }}
{{- if include "grapnel.hasProxy" $ }}
{{- with .noProxy }}
- name: GRAPNEL_NO_PROXY
  value: {{ join "," . | quote }}
{{- end }}
- name: GRAPNEL_EGRESS_PROXY_RESOLVES
  value: {{ .proxyResolves | quote }}
{{- end }}
{{- end }}
{{- if include "grapnel.hasAuthorities" . }}
- name: GRAPNEL_EGRESS_CA_FILE
  value: /etc/grapnel/egress-ca/{{ .Values.egress.ca.key }}
{{- end }}
{{- end -}}

{{/* `volumes` of a pod, if it needs any. */}}
{{- define "grapnel.egressVolumes" -}}
{{- if include "grapnel.hasAuthorities" . }}
volumes:
- name: egress-ca
  {{- if .Values.egress.ca.configMap }}
  configMap: {name: {{ .Values.egress.ca.configMap | quote }}}
  {{- else }}
  secret: {secretName: {{ .Values.egress.ca.secret | quote }}}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "grapnel.egressVolumeMounts" -}}
{{- if include "grapnel.hasAuthorities" . }}
volumeMounts:
- {name: egress-ca, mountPath: /etc/grapnel/egress-ca, readOnly: true}
{{- end }}
{{- end -}}

{{/* The proxy, for a NetworkPolicy. */}}
{{- define "grapnel.proxyEgress" -}}
{{- if include "grapnel.hasProxy" . }}
- ports:
  - {protocol: TCP, port: {{ int .Values.egress.proxy.port }}}
  {{- with .Values.networkPolicy.proxyTo }}
  to: {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}
