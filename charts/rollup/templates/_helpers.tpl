{{/* The name of all objects. The longest that is made of it is FULLNAME-sequencer, whose pods have a label with the name
and a hash: of the 63 characters that a label may have, 42 are left. */}}
{{- define "rollup.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- /* A release may have a dot in its name, and a Service may not. */ -}}
{{- contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | replace "." "-" | trunc 42 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the objects of this release. It never changes: a StatefulSet's selector cannot. A release may be called
123 or true. */}}
{{- define "rollup.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* Labels of every object, but not of pods: the chart's version is one of them. */}}
{{- define "rollup.labels" -}}
{{ include "rollup.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* (list ROOT COMPONENT NAME LABELS ANNOTATIONS) is the metadata of an object. What is given later wins. */}}
{{- define "rollup.metadata" -}}
{{- $root := index . 0 -}}
{{- $labels := dict "app.kubernetes.io/component" (index . 1) -}}
{{- range $from := list (include "rollup.labels" $root | fromYaml) (index . 3) -}}
{{- range $key, $value := $from }}{{ $_ := set $labels $key $value }}{{ end -}}
{{- end -}}
{{- $annotations := dict -}}
{{- range $from := list $root.Values.annotations (index . 4) -}}
{{- range $key, $value := $from }}{{ $_ := set $annotations $key $value }}{{ end -}}
{{- end -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (list TARGET OVER) puts the keys of OVER into TARGET, level by level. sprig's merge keeps a true that is overridden
with false. */}}
{{- define "rollup.overlay" -}}
{{- $target := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $target $key)) -}}
{{- include "rollup.overlay" (list (get $target $key) $value) -}}
{{- else -}}
{{- $_ := set $target $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (list ROOT NAME OUT) makes OUT the values of a set: the shared ones, and over them its own. A config is replaced
whole, because one from a Secret and one from a ConfigMap are not one config. */}}
{{- define "rollup.set" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $out := index . 2 -}}
{{- $own := deepCopy (get $root.Values $name) -}}
{{- $configs := deepCopy $root.Values.configs -}}
{{- range $version, $config := $own.configs }}{{ $_ := set $configs $version $config }}{{ end -}}
{{- include "rollup.overlay" (list $out (deepCopy $root.Values)) -}}
{{- include "rollup.overlay" (list $out $own) -}}
{{- $_ := set $out "configs" $configs -}}
{{- $_ := set $out "component" $name -}}
{{- $_ := set $out "fullname" (printf "%s-%s" (include "rollup.fullname" $root) $name) -}}
{{- end -}}

{{/* IMAGE as it is pulled. */}}
{{- define "rollup.image" -}}
{{- .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end -}}
{{- end -}}

{{- define "rollup.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "rollup.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The security context of a pod, as Pod Security "restricted" wants it. */}}
{{- define "rollup.podSecurity" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- $id := index $.Values.podSecurityContext $key }}
{{- if not (kindIs "invalid" $id) }}
{{ $key }}: {{ int64 $id }}
{{- end }}
{{- end }}
{{- with .Values.podSecurityContext.fsGroupChangePolicy }}
fsGroupChangePolicy: {{ . }}
{{- end }}
seccompProfile:
  type: {{ .Values.seccomp.type }}
  {{- with .Values.seccomp.localhostProfile }}
  localhostProfile: {{ . }}
  {{- end }}
{{- end -}}

{{/* The same of a container. */}}
{{- define "rollup.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* (list ROOT SET) is what all pods that run the image have in common. */}}
{{- define "rollup.podCommon" -}}
{{- $root := index . 0 -}}
{{- $set := index . 1 -}}
automountServiceAccountToken: false
# A Service named entrypoint would set ENTRYPOINT_ variables.
enableServiceLinks: false
securityContext:
  {{- include "rollup.podSecurity" $root | nindent 2 }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $root.Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $set.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $set.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $set.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (list ROOT SET PREFIX) are the volumes with plan and configs. PREFIX is what comes before the name of an object that
the chart makes of inline data. */}}
{{- define "rollup.configVolumes" -}}
{{- $root := index . 0 -}}
{{- $set := index . 1 -}}
{{- $prefix := index . 2 -}}
{{- if or $root.Values.plan.configMap $root.Values.plan.inline }}
- name: plan
  configMap:
    name: {{ default (printf "%s-plan" $prefix) $root.Values.plan.configMap }}
    items:
      - {key: {{ if $root.Values.plan.inline }}manager.json{{ else }}{{ $root.Values.plan.key }}{{ end }}, path: manager.json}
{{- end }}
{{- range $name, $config := $set.configs }}
- name: {{ include "rollup.configVolume" $name }}
  {{- if $config.configMap }}
  configMap:
    name: {{ $config.configMap }}
    items:
      - {key: {{ default "config.toml" $config.key }}, path: config.toml}
  {{- else }}
  secret:
    secretName: {{ default (printf "%s-%s-configs" $prefix $set.component) $config.secret }}
    items:
      - {key: {{ if $config.inline }}{{ $name }}.toml{{ else }}{{ default "config.toml" $config.key }}{{ end }}, path: config.toml}
  {{- end }}
{{- if $config.writableFolder }}
- name: {{ include "rollup.configVolume" $name }}-folder
  emptyDir: {}
{{- end }}
{{- end }}
{{- end -}}

{{/* (list ROOT SET CLAIM) are all volumes of a pod that has a claim: CLAIM, or the existing one. Without either the claim
comes from a template. */}}
{{- define "rollup.volumes" -}}
{{- $root := index . 0 -}}
{{- $set := index . 1 -}}
{{- with default (index . 2) $set.storage.existingClaim }}
- name: data
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- include "rollup.configVolumes" (list $root $set (include "rollup.fullname" $root)) }}
{{- with $set.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* NAME of a version, as the name of a volume: v1.2 becomes config-v1-2. */}}
{{- define "rollup.configVolume" -}}
config-{{ . | lower | replace "." "-" | replace "_" "-" }}
{{- end -}}

{{/* (list ROOT SET) are the mounts of these volumes. */}}
{{- define "rollup.configMounts" -}}
{{- $root := index . 0 -}}
{{- $set := index . 1 -}}
{{- if or $root.Values.plan.configMap $root.Values.plan.inline }}
# The folder, not the file: so a changed plan arrives in the running pod, which says so without reading it.
- {name: plan, mountPath: /etc/rollup/plan, readOnly: true}
{{- end }}
{{- range $name, $config := $set.configs }}
{{- if $config.writableFolder }}
- {name: {{ include "rollup.configVolume" $name }}-folder, mountPath: /etc/rollup/configs/{{ $name }}}
{{- end }}
- {name: {{ include "rollup.configVolume" $name }}, mountPath: /etc/rollup/configs/{{ $name }}/config.toml, subPath: config.toml, readOnly: true}
{{- end }}
{{- end -}}

{{/* Environment that run and check share. */}}
{{- define "rollup.env" -}}
- {name: NO_COLOR, value: "1"}
- {name: ENTRYPOINT_STOP_TIMEOUT, value: {{ int64 .Values.stopSeconds }}s}
- {name: ENTRYPOINT_UNDO, value: {{ .Values.undo | quote }}}
- {name: ENTRYPOINT_NOFILE, value: {{ int64 .Values.nofile | quote }}}
{{- if or .Values.plan.configMap .Values.plan.inline }}
- {name: ENTRYPOINT_CONFIG, value: /etc/rollup/plan/manager.json}
{{- end }}
{{- with .Values.stopHeight }}
- {name: ENTRYPOINT_STOP_HEIGHT, value: {{ int64 . | quote }}}
{{- end }}
{{- end -}}

{{/* What restartOnConfigChange hashes: the data of plan and configs that the chart makes, and nothing else. */}}
{{- define "rollup.configHash" -}}
{{- $root := index . 0 -}}
{{- $set := index . 1 -}}
{{- $data := dict "plan" $root.Values.plan.inline -}}
{{- range $name, $config := $set.configs }}{{ with $config.inline }}{{ $_ := set $data (printf "config %s" $name) . }}{{ end }}{{ end -}}
{{- $data | toJson | sha256sum -}}
{{- end -}}

{{/* (list ROOT SET) are the addresses of the status of the set's pods, one a line: each pod by its own name, because an
answer from any of them says nothing about the others. */}}
{{- define "rollup.podAddresses" -}}
{{- $root := index . 0 -}}
{{- $set := index . 1 -}}
{{- range $ordinal := until (int $set.replicaCount) }}
{{ $set.fullname }}-{{ $ordinal }}.{{ include "rollup.fullname" $root }}-headless:{{ int $root.Values.ports.status }}
{{- end }}
{{- end -}}

{{- define "rollup.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The labels of a pod that runs one command. They are not those of a node's pod, so no
Service and no budget counts it. */}}
{{- define "rollup.commandLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}-command
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* The resources of SET. What a container may use of memory is also reserved for it. */}}
{{- define "rollup.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- with dig "limits" "memory" "" $resources -}}
{{- $_ := set $resources "requests" (merge (default dict $resources.requests) (dict "memory" .)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The resources of a command that asks or checks: it reads the versions' files, but holds none in memory. */}}
{{- define "rollup.commandResources" -}}
requests: {cpu: 100m, memory: 128Mi}
limits: {memory: 128Mi}
{{- end -}}

{{/* (list ROOT PREFIX ANNOTATIONS) are the ConfigMap and the Secrets with inline data. */}}
{{- define "rollup.inlineConfigs" -}}
{{- $root := index . 0 -}}
{{- $prefix := index . 1 -}}
{{- $annotations := index . 2 -}}
{{- with $root.Values.plan.inline }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  {{- include "rollup.metadata" (list $root "plan" (printf "%s-plan" $prefix) dict $annotations) | nindent 2 }}
data:
  {{- dict "manager.json" . | toYaml | nindent 2 }}
{{- end }}
{{- range $component := list "sequencer" "replicas" }}
{{- $set := dict }}
{{- include "rollup.set" (list $root $component $set) }}
{{- $data := dict }}
{{- range $name, $config := $set.configs }}{{ with $config.inline }}{{ $_ := set $data (printf "%s.toml" $name) . }}{{ end }}{{ end }}
{{- if $data }}
---
apiVersion: v1
kind: Secret
metadata:
  {{- include "rollup.metadata" (list $root $component (printf "%s-%s-configs" $prefix $component) dict $annotations) | nindent 2 }}
stringData:
  {{- toYaml $data | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
