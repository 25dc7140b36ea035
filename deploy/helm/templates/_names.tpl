{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{/* The command line finds the operator by these labels, and by the name kubeblocks. */}}
{{- define "kubeblocks.selector" -}}
app.kubernetes.io/name: kubeblocks
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kubeblocks.labels" -}}
{{ include "kubeblocks.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "kubeblocks.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
