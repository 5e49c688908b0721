{{/* Values that are right each alone, but contradict each other. Each message names the key. The schema refuses the rest. */}}
{{- define "rollup.validate" -}}
{{- with include "rollup.fullname" . }}{{ if not (regexMatch "^[a-z]" .) }}{{ fail (printf "fullnameOverride is empty, and %s, which is made of the release's name, begins with a digit: a Service cannot" .) }}{{ end }}{{ end -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- range $key, $labels := dict "labels" .Values.labels "service.labels" .Values.service.labels "metrics.serviceMonitor.labels" .Values.metrics.serviceMonitor.labels "metrics.podMonitor.labels" .Values.metrics.podMonitor.labels "metrics.prometheusRule.labels" .Values.metrics.prometheusRule.labels "metrics.dashboard.labels" .Values.metrics.dashboard.labels -}}
{{- range $own }}{{ if hasKey $labels . }}{{ fail (printf "%s: %s is set by the chart, which selects by it" $key .) }}{{ end }}{{ end -}}
{{- end -}}
{{- if and .Values.plan.configMap .Values.plan.inline }}{{ fail "plan.configMap and plan.inline are both set: a pod has one plan" }}{{ end -}}
{{- with .Values.plan.inline -}}
{{- $problem := "" -}}
{{- if hasPrefix "[" (trim .) -}}
{{- range fromJsonArray . }}{{ if kindIs "string" . }}{{ $problem = . }}{{ end }}{{ end -}}
{{- else -}}
{{- $problem = dig "Error" "" (fromJson .) -}}
{{- end -}}
{{- if $problem }}{{ fail (printf "plan.inline is not the JSON of a plan: %s" $problem) }}{{ end -}}
{{- end -}}
{{- if and (eq .Values.seccomp.type "Localhost") (not .Values.seccomp.localhostProfile) }}{{ fail "seccomp.localhostProfile is empty: seccomp.type Localhost needs the name of the profile's file" }}{{ end -}}
{{- if and (ne .Values.seccomp.type "Localhost") .Values.seccomp.localhostProfile }}{{ fail (printf "seccomp.localhostProfile is set, but seccomp.type is %s: it would be ignored" .Values.seccomp.type) }}{{ end -}}
{{- if and (eq .Values.service.type "ClusterIP") .Values.service.externalTrafficPolicy }}{{ fail "service.externalTrafficPolicy is set, but service.type is ClusterIP" }}{{ end -}}
{{- if and (ne .Values.service.type "LoadBalancer") .Values.service.loadBalancerClass }}{{ fail (printf "service.loadBalancerClass is set, but service.type is %s" .Values.service.type) }}{{ end -}}
{{- if and (eq .Values.service.ipFamilyPolicy "SingleStack") (gt (len .Values.service.ipFamilies) 1) }}{{ fail "service.ipFamilyPolicy is SingleStack, but service.ipFamilies names two families" }}{{ end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled }}{{ fail "metrics.serviceMonitor.enabled and metrics.podMonitor.enabled are both true: each pod would be scraped twice" }}{{ end -}}
{{- if eq (int .Values.ports.api) (int .Values.ports.status) }}{{ fail (printf "ports.api and ports.status are both %d" (int .Values.ports.api)) }}{{ end -}}
{{- $claims := list -}}
{{- $inline := .Values.plan.inline -}}
{{- range $component := list "sequencer" "replicas" -}}
{{- $set := dict -}}
{{- include "rollup.set" (list $ $component $set) -}}
{{- include "rollup.validateSet" (list $ $component $set) -}}
{{- with $set.storage.existingClaim -}}
{{- if and (gt (int $set.replicaCount) 0) (has . $claims) }}{{ fail (printf "%s.storage.existingClaim is %s, which the other set uses too: two nodes would be on one state" $component .) }}{{ end -}}
{{- if gt (int $set.replicaCount) 0 }}{{ $claims = append $claims . }}{{ end -}}
{{- end -}}
{{- range $set.configs }}{{ with .inline }}{{ $inline = . }}{{ end }}{{ end -}}
{{- end -}}
{{- if and .Values.restartOnConfigChange (not $inline) }}{{ fail "restartOnConfigChange is true, but neither plan.inline nor an inline config is set: the chart cannot see a change of other ConfigMaps and Secrets" }}{{ end -}}
{{- if .Values.job.enabled -}}
{{- if not .Values.job.args }}{{ fail "job.args is empty: job.enabled needs a command of the entrypoint" }}{{ end -}}
{{- $set := dict -}}
{{- include "rollup.set" (list . .Values.job.set $set) -}}
{{- if and $set.storage.existingClaim .Values.job.ordinal }}{{ fail (printf "job.ordinal is %d, but storage.existingClaim names the only claim" (int .Values.job.ordinal)) }}{{ end -}}
{{- if gt (int $set.replicaCount) 0 }}{{ fail (printf "%s.replicaCount is not 0: job.enabled needs the set scaled to 0, because a running node has the state" .Values.job.set) }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "rollup.validateSet" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $set := index . 2 -}}
{{- $count := int $set.replicaCount -}}
{{- if not $set.image.repository }}{{ fail "image.repository is empty: name your image, which holds the entrypoint and every version of the chain" }}{{ end -}}
{{- if not (or $set.image.tag $set.image.digest) }}{{ fail "image.tag and image.digest are both empty: name one of them" }}{{ end -}}
{{- $volumes := list "data" "plan" -}}
{{- range $name, $config := $set.configs -}}
{{- if ne 1 (len (compact (list $config.secret $config.configMap $config.inline))) }}{{ fail (printf "configs.%s: want one of secret, configMap and inline" $name) }}{{ end -}}
{{- $volumes = append $volumes (include "rollup.configVolume" $name) -}}
{{- if $config.writableFolder }}{{ $volumes = append $volumes (printf "%s-folder" (include "rollup.configVolume" $name)) }}{{ end -}}
{{- if and $config.inline $config.key }}{{ fail (printf "configs.%s.key is set, but the config is inline and has no key" $name) }}{{ end -}}
{{- end -}}
{{- if ne (len $volumes) (len (uniq $volumes)) }}{{ fail (printf "configs: two of the names %s make the same volume: %s" (keys $set.configs | sortAlpha | join ", ") (join ", " $volumes)) }}{{ end -}}
{{- range $set.extraVolumes }}{{ if has .name $volumes }}{{ fail (printf "extraVolumes: %s is the name of a volume of the chart" .name) }}{{ end }}{{ end -}}
{{- range list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" }}{{ if hasKey $set.podLabels . }}{{ fail (printf "podLabels: %s is set by the chart" .) }}{{ end }}{{ end -}}
{{- range list "kubectl.kubernetes.io/default-container" "checksum/config" }}{{ if hasKey $set.podAnnotations . }}{{ fail (printf "podAnnotations: %s is set by the chart" .) }}{{ end }}{{ end -}}
{{- if and (gt $count 1) (eq $set.readyRole "leader") (eq $set.updateStrategy.type "RollingUpdate") }}{{ fail (printf "%s.readyRole is leader with %s.replicaCount %d: a standby is never ready, so a rolling update waits for it forever; use any, or updateStrategy.type OnDelete" $component $component $count) }}{{ end -}}
{{- if and (eq $set.updateStrategy.type "OnDelete") $set.updateStrategy.partition }}{{ fail "updateStrategy.partition is set, but updateStrategy.type is OnDelete: it would be ignored" }}{{ end -}}
{{- if and $set.storage.existingClaim (gt $count 1) }}{{ fail (printf "storage.existingClaim is set with %s.replicaCount %d: nodes cannot share a state" $component $count) }}{{ end -}}
{{- if and $set.storage.existingClaim $set.storage.dataSource }}{{ fail "storage.existingClaim and storage.dataSource are both set: only a new claim is filled" }}{{ end -}}
{{- with $set.storage.dataSource }}{{ if not (and .kind .name) }}{{ fail "storage.dataSource needs kind and name" }}{{ end }}{{ end -}}
{{- $taken := dict "NO_COLOR" "the chart" "ENTRYPOINT_LISTEN" "ports.status" "ENTRYPOINT_STOP_TIMEOUT" "stopSeconds" "ENTRYPOINT_UNDO" "undo" "ENTRYPOINT_NOFILE" "nofile" "ENTRYPOINT_WHEN_FINISHED" "whenFinished" "ENTRYPOINT_STOP_HEIGHT" "stopHeight" -}}
{{- if or $root.Values.plan.configMap $root.Values.plan.inline }}{{ $_ := set $taken "ENTRYPOINT_CONFIG" "plan" }}{{ end -}}
{{- range $variable := $set.extraEnv }}{{ with get $taken $variable.name }}{{ fail (printf "extraEnv: %s is set by %s" $variable.name .) }}{{ end }}{{ end -}}
{{- range $argument := $set.extraArgs -}}
{{- range list "-c" "--config" "-f" "--checkpoint-file" "--manifest" "--hold-file" "--undo-dir" -}}
{{- if or (eq $argument .) (hasPrefix (printf "%s=" .) $argument) }}{{ fail (printf "extraArgs: %s is not for run alone: set its ENTRYPOINT_ variable in extraEnv, which the check and the job read too" .) }}{{ end -}}
{{- end -}}
{{- if eq $argument "--" }}{{ fail "extraArgs: -- begins the node's arguments, which are nodeArgs" }}{{ end -}}
{{- range $variable, $by := $taken -}}
{{- $flag := $variable | trimPrefix "ENTRYPOINT_" | lower | replace "_" "-" | printf "--%s" -}}
{{- if or (eq $argument $flag) (hasPrefix (printf "%s=" $flag) $argument) }}{{ fail (printf "extraArgs: %s is set by %s, and the flag would win" $flag $by) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
