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

{{- define "tenantauth.labels" -}}
{{ include "tenantauth.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "tenantauth.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The image's user, who is nobody special. The kubelet gives mounted files to its group. */}}
{{- define "tenantauth.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10101
runAsGroup: 10101
fsGroup: 10101
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "tenantauth.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
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

{{/* Where pods run, spread over nodes as far as there are nodes. Arguments: root, component, values. */}}
{{- define "tenantauth.scheduling" -}}
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
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tenantauth.selector" . | nindent 8 }}
{{- end -}}
