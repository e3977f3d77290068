{{- define "lorikeet-server.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "lorikeet-server.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "lorikeet-server.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "lorikeet-server.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "lorikeet-server.serviceAccount" -}}
{{- default (include "lorikeet-server.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "lorikeet-server.selector" -}}
app.kubernetes.io/name: {{ include "lorikeet-server.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lorikeet-server.labels" -}}
{{ include "lorikeet-server.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: server
app.kubernetes.io/part-of: lorikeet
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "lorikeet-server.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}


{{- /* Whether something else sets the number of pods: an upgrade must not set it back. */ -}}
{{- define "lorikeet-server.autoscaled" -}}
{{- if or .Values.autoscaling.keda.enabled (kindIs "invalid" .Values.replicas) }}true{{ end }}
{{- end }}

{{- define "lorikeet-server.backend" -}}
{{- if eq .Values.engine.backend "cuda" }}
{{- $gpus := list }}
{{- range $name, $count := default dict .Values.resources.limits }}
{{- if hasPrefix "nvidia.com/" $name }}{{ $gpus = append $gpus $name }}{{ end }}
{{- end }}
{{- if not $gpus }}{{ fail "Expected a GPU, such as nvidia.com/gpu: 1, among resources.limits for engine.backend cuda" }}{{ end }}
{{- end }}
{{- .Values.engine.backend }}
{{- end }}

{{- define "lorikeet-server.tlsSecret" -}}
{{- if .Values.admin.tls.secret }}{{ .Values.admin.tls.secret }}
{{- else if .Values.admin.tls.certManager.issuer }}{{ include "lorikeet-server.fullname" . }}-admin-tls
{{- else if .Values.admin.tls.clientSecret }}{{ fail "admin.tls.clientSecret needs admin.tls.secret" }}
{{- end }}
{{- end }}

{{- define "lorikeet-server.clientSecret" -}}
{{- if .Values.admin.tls.clientSecret }}{{ .Values.admin.tls.clientSecret }}
{{- else if .Values.admin.tls.certManager.issuer }}{{ include "lorikeet-server.fullname" . }}-operator-tls
{{- end }}
{{- end }}

{{- /* That of the operator's own certificate, where it has one: it need not see the pods' key then. */ -}}
{{- define "lorikeet-server.caSecret" -}}
{{- default (include "lorikeet-server.tlsSecret" .) (include "lorikeet-server.clientSecret" .) }}
{{- end }}

{{- define "lorikeet-server.tlsName" -}}
{{- default (printf "%s.%s.svc" (include "lorikeet-server.fullname" .) .Release.Namespace) .Values.admin.tls.serverName }}
{{- end }}

{{- /* Secrets that the operator may read, as a JSON list. */ -}}
{{- define "lorikeet-server.operatorSecrets" -}}
{{- $names := prepend .Values.sourceSecrets .Values.admin.tokenSecret.name }}
{{- if include "lorikeet-server.tlsSecret" . }}{{ $names = append $names (include "lorikeet-server.caSecret" .) }}{{ end }}
{{- $names | uniq | toJson }}
{{- end }}
