{{/* How the engine beside the server is started: as vLLM, or as SGLang. */}}
{{- define "lorikeet-server.attachedCommand" -}}
{{- if not (kindIs "invalid" .Values.attached.command) -}}
{{- with .Values.attached.command }}{{ toYaml . }}{{ end -}}
{{- else if eq .Values.engine.kind "vllm" -}}
[vllm, serve]
{{- else -}}
[python3, -m, sglang.launch_server]
{{- end -}}
{{- end -}}

{{/* An adapter that it holds beyond slots would push out another unseen. */}}
{{- define "lorikeet-server.attachedArgs" -}}
{{- $model := printf "/models/base/%s" .Values.model.subPath -}}
{{- if eq .Values.engine.kind "vllm" -}}
- {{ $model }}
- --max-loras={{ .Values.engine.slots }}
- --max-cpu-loras={{ .Values.engine.slots }}
{{- else -}}
- --model-path={{ $model }}
- --lora-target-modules=all
- --max-loras-per-batch={{ .Values.engine.slots }}
- --max-loaded-loras={{ .Values.engine.slots }}
{{- end }}
- --enable-lora
- --max-lora-rank={{ .Values.engine.maxRank }}
- --served-model-name={{ .Values.model.name }}
- --host=127.0.0.1
- --port={{ .Values.attached.port }}
{{- with .Values.attached.args }}
{{ tpl (toYaml .) $ }}
{{- end -}}
{{- end -}}

{{- define "lorikeet-server.attachedEnv" -}}
- name: HOME
  value: /tmp
{{- if eq .Values.engine.kind "vllm" }}
- name: VLLM_ALLOW_RUNTIME_LORA_UPDATING
  value: "True"
{{- end }}
{{- with .Values.attached.env }}
{{ toYaml . }}
{{- end -}}
{{- end -}}
