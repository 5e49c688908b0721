{{- define "rollup.validate" -}}{{- end -}}
