{{- define "lorikeet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "lorikeet.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "lorikeet.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "lorikeet.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "lorikeet.serviceAccount" -}}
{{- default (include "lorikeet.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "lorikeet.selector" -}}
app.kubernetes.io/name: {{ include "lorikeet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lorikeet.labels" -}}
{{ include "lorikeet.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: lorikeet
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "lorikeet.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{/* Cluster-wide rights, or rights in the one namespace that is watched. */}}
{{- define "lorikeet.watchRules" -}}
- apiGroups: [lorikeet.dev]
  resources: [loraadapters]
  # patch: the finalizer and an annotation. The spec is never written.
  verbs: [get, list, watch, patch]
- apiGroups: [lorikeet.dev]
  resources: [serverpools]
  verbs: [get, list, watch]
- apiGroups: [lorikeet.dev]
  resources: [loraadapters/status, serverpools/status]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "lorikeet.pushSecret" -}}
{{- if .Values.push.tls.secret }}{{ .Values.push.tls.secret }}
{{- else if .Values.push.tls.certManager.issuer }}{{ include "lorikeet.fullname" . }}-push-tls
{{- end }}
{{- end }}

{{/* Not the operator's selector: its Service and its disruption budget must not take the Job's pod for an operator. */}}
{{- define "lorikeet.uninstallLabels" -}}
app.kubernetes.io/name: {{ include "lorikeet.name" . }}-uninstall
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: lorikeet
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "lorikeet.uninstallHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
