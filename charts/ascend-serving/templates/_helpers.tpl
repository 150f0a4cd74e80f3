{{/* The labels of the manifests, by which selectors find the operator's pods. */}}
{{- define "ascend-serving.selector" -}}
app.kubernetes.io/name: ascend-serving
app.kubernetes.io/component: operator
{{- end }}

{{/* On every object; the version is not on pods, or each upgrade would replace them. */}}
{{- define "ascend-serving.labels" -}}
{{ include "ascend-serving.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* list . COMPONENT -> the same on an object that is not the operator's. */}}
{{- define "ascend-serving.labelsOf" -}}
{{- include "ascend-serving.labels" (index . 0) | replace "component: operator" (printf "component: %s" (index . 1)) -}}
{{- end }}

{{/* list . VALUE NAME -> the image that a value names, else the one of this version. */}}
{{- define "ascend-serving.image" -}}
{{- $root := index . 0 -}}
{{- index . 1 | default (printf "ascend-serving/%s:%s" (index . 2) $root.Chart.AppVersion) -}}
{{- end }}

{{/* Where ServiceMonitors look. */}}
{{- define "ascend-serving.namespaceSelector" -}}
{{- with .Values.operator.namespaces -}}
matchNames:
{{- toYaml . | nindent 0 }}
{{- else -}}
any: true
{{- end -}}
{{- end }}

{{/* The ServingDeployment of the autoscaling example. */}}
{{- define "ascend-serving.scaled" -}}
{{- with .Values.examples.autoscaling -}}
{{- if and .hpa.enabled .keda.enabled -}}
{{- fail "examples.autoscaling: hpa.enabled and keda.enabled are both true; KEDA makes a HorizontalPodAutoscaler of its own, so enable one" -}}
{{- end -}}
{{- if lt (int .maxReplicas) (int .minReplicas) -}}
{{- fail (printf "examples.autoscaling: maxReplicas %d is below minReplicas %d" (int .maxReplicas) (int .minReplicas)) -}}
{{- end -}}
{{- required "examples.autoscaling.servingDeployment is empty; name the ServingDeployment to scale" .servingDeployment -}}
{{- end -}}
{{- end }}

{{/* How fast it scales: loading weights takes minutes, until they count more load is no reason. */}}
{{- define "ascend-serving.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 120
  policies:
  - type: Pods
    value: 1
    periodSeconds: 300
scaleDown:
  stabilizationWindowSeconds: 900
  policies:
  - type: Pods
    value: 1
    periodSeconds: 300
{{- end }}
