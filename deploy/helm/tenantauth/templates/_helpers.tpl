{{- define "tenantauth.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters: what is put behind it makes 63. */}}
{{- define "tenantauth.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "tenantauth.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tenantauth.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What pods are selected by. Arguments: root, component. */}}
{{- define "tenantauth.selector" -}}
app.kubernetes.io/name: {{ include "tenantauth.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Arguments: root, component, own (more labels). */}}
{{- define "tenantauth.labels" -}}
{{ include "tenantauth.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with .own }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The block of an object's annotations, or nothing. Arguments: root, own, indent. */}}
{{- define "tenantauth.annotations" -}}
{{- with mergeOverwrite (dict) .root.Values.commonAnnotations (.own | default dict) }}
{{- dict "annotations" . | toYaml | nindent $.indent }}
{{- end }}
{{- end -}}

{{- define "tenantauth.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- define "tenantauth.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "tenantauth.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* Whether the gateway has a port for a backend: its name, port and probe path, one a line. */}}
{{- define "tenantauth.backends" -}}
{{- with .Values.gateway -}}
{{- if .mimirUrl }}
mimir: 8081
{{- end }}
{{- if .lokiUrl }}
loki: 8082
{{- end }}
{{- if .tempoUrl }}
tempo: 8083
{{- end }}
{{- if .pyroscopeUrl }}
pyroscope: 8084
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tenantauth.policyConfigMap" -}}
{{- if .Values.policy.document -}}
{{ include "tenantauth.fullname" . }}-policy
{{- else -}}
{{ required "policy.document or policy.existingConfigMap: without a policy nobody is let in" .Values.policy.existingConfigMap }}
{{- end -}}
{{- end -}}

{{/* The ConfigMap of an owner whose text stands in the values. Names of owners may hold what names of ConfigMaps may
     not. Arguments: root, owner. */}}
{{- define "tenantauth.ownerConfigMap" -}}
{{- $safe := .owner | lower | replace "_" "-" | replace "." "-" -}}
{{- if eq $safe .owner -}}
{{ include "tenantauth.fullname" .root }}-owner-{{ .owner }}
{{- else -}}
{{ include "tenantauth.fullname" .root }}-owner-{{ $safe }}-{{ .owner | sha256sum | trunc 8 }}
{{- end -}}
{{- end -}}

{{- define "tenantauth.keysSecret" -}}
{{- if .Values.clientIpKeys.value -}}
{{ include "tenantauth.fullname" . }}-client-ip
{{- else -}}
{{ .Values.clientIpKeys.existingSecret }}
{{- end -}}
{{- end -}}

{{/* The keys file, as a source of a projected volume. */}}
{{- define "tenantauth.keysSource" -}}
- secret:
    name: {{ include "tenantauth.keysSecret" . }}
    items: [{ key: {{ ternary "client-ip.keys" .Values.clientIpKeys.key (not (empty .Values.clientIpKeys.value)) }}, path: client-ip.keys }]
{{- end -}}

{{/* Pods of a component, in a NetworkPolicy of any namespace. Arguments: root, component. */}}
{{- define "tenantauth.peer" -}}
namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: {{ .root.Release.Namespace }} } }
podSelector:
  matchLabels:
    {{- include "tenantauth.selector" . | nindent 4 }}
{{- end -}}

{{/* An address of a backend. nginx asks the name server itself, and knows no search domains: a Service's bare name is
     completed. Arguments: root, url. */}}
{{- define "tenantauth.url" -}}
{{- $parts := urlParse .url -}}
{{- if contains "." $parts.hostname | or (contains ":" $parts.hostname) -}}
{{ .url }}
{{- else -}}
{{ $parts.scheme }}://{{ $parts.hostname }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}{{ regexFind ":[0-9]+$" $parts.host }}
{{- end -}}
{{- end -}}

{{/* What every pod has, but for its containers and volumes. Spread over nodes as far as there are nodes. Arguments: root,
     component, values. */}}
{{- define "tenantauth.pod" -}}
serviceAccountName: {{ include "tenantauth.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
  {{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tenantauth.selector" . | nindent 8 }}
  {{- end }}
{{- with .values.extraInitContainers }}
initContainers:
  {{- tpl (toYaml .) $.root | nindent 2 }}
{{- end }}
{{- end -}}
