{{- define "tunewheel.fullname" -}}
{{- if contains "tunewheel" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-tunewheel" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "tunewheel.selector" -}}
app.kubernetes.io/name: tunewheel
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .name }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "tunewheel.labels" -}}
{{ include "tunewheel.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tunewheel.image" -}}
{{- $own := .values.image | default dict }}
{{- $repository := $own.repository | default (printf "%s/%s" .root.Values.image.repository .name) }}
{{- $published := ternary "" (get (.root.Values.image.digests | default dict) .name) (or (not (empty $own.repository)) (not (empty $own.tag))) }}
{{- with $own.digest | default $published }}{{ $repository }}@{{ . }}
{{- else }}{{ $repository }}:{{ $own.tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The volume that is the store where no object store is named. */}}
{{- define "tunewheel.storeClaim" -}}
{{- .Values.store.volume.existingClaim | default (printf "%s-store" (include "tunewheel.fullname" .)) }}
{{- end }}

{{/* The services that are installed, as JSON: by name, its values and what it is (files/services.yaml). */}}
{{- define "tunewheel.services" -}}
{{- $facts := .Files.Get "files/services.yaml" | fromYaml }}
{{- $found := dict }}
{{- range $name, $values := .Values.services }}
{{- if $values.enabled }}
{{- $scaling := (($values.scaling | default dict).enabled) | default false }}
{{- $stateful := or (eq $name "engine") ((($values.persistence | default dict).enabled) | default false) }}
{{- $_ := set $found $name (dict "values" $values "facts" (index $facts $name) "scaled" $scaling "kind" (ternary "StatefulSet" "Deployment" $stateful)) }}
{{- end }}
{{- end }}
{{- toJson $found }}
{{- end }}

{{/* Topics as this installation has them: by name, partitions and settings. */}}
{{- define "tunewheel.topics" -}}
{{- $topics := (.Files.Get "files/kafka.json" | fromJson).topics }}
{{- range $name, $partitions := .Values.kafka.partitions }}
{{- if not (hasKey $topics $name) }}{{ fail (printf "kafka.partitions: there is no topic %q" $name) }}{{ end }}
{{- $_ := set (index $topics $name) "partitions" $partitions }}
{{- end }}
{{- toJson $topics }}
{{- end }}

{{/* The most partitions of one topic that a service shares among its replicas. */}}
{{- define "tunewheel.partitions" -}}
{{- $topics := include "tunewheel.topics" .root | fromJson }}
{{- $most := 1 }}
{{- range index (.root.Files.Get "files/kafka.json" | fromJson).groups .name }}
{{- $most = max $most (index $topics .topic).partitions }}
{{- end }}
{{- $most }}
{{- end }}

{{- define "tunewheel.kafkaUser" -}}
{{ include "tunewheel.fullname" .root }}-{{ .name }}
{{- end }}

{{/* Who a service is to Kafka, as JSON: saslUsername, saslSecret, clientSecret. */}}
{{- define "tunewheel.principal" -}}
{{- $kafka := .root.Values.kafka }}
{{- $users := and .root.Values.strimzi.enabled .root.Values.strimzi.users.enabled }}
{{- $scram := and (hasPrefix "SASL" $kafka.securityProtocol) (ne $kafka.sasl.mechanism "OAUTHBEARER") }}
{{- $name := include "tunewheel.kafkaUser" . }}
{{- $username := ternary $name ($kafka.sasl.username | replace "{service}" .name) $users }}
{{- $secret := ternary $name ($kafka.sasl.existingSecret | replace "{service}" .name) $users }}
{{- $client := $kafka.tls.clientSecret | replace "{service}" .name }}
{{- if and $users (eq .root.Values.strimzi.users.authentication "tls") }}{{ $client = $name }}{{ end }}
{{- toJson (dict "saslUsername" (ternary $username "" $scram) "saslSecret" (ternary $secret "" $scram) "clientSecret" $client) }}
{{- end }}

{{/* The account of a service's pods. Takes root, name. */}}
{{- define "tunewheel.serviceAccount" -}}
{{- $account := .root.Values.serviceAccount }}
{{- if $account.name }}{{ $account.name | replace "{service}" .name }}
{{- else }}{{ include "tunewheel.fullname" .root }}{{ if $account.perService }}-{{ .name }}{{ end }}{{ end }}
{{- end }}

{{- define "tunewheel.engineUrls" -}}
{{- if .Values.engine.url }}{{ .Values.engine.url }}
{{- else if .Values.services.engine.scaling.enabled }}dns+http://{{ include "tunewheel.fullname" . }}-engine-pods:8080
{{- else }}
{{- $name := printf "%s-engine" (include "tunewheel.fullname" .) }}
{{- $scheme := ternary "https" "http" (ne .Values.tls.existingSecret "") }}
{{- $urls := list }}
{{- range until (int .Values.services.engine.replicas) }}
{{- $urls = append $urls (printf "%s://%s-%d.%s-pods.%s.svc:8080" $scheme $name . $name $.Release.Namespace) }}
{{- end }}
{{- join "," $urls }}
{{- end }}
{{- end }}

{{/* What a service is told, as JSON: variables, and secrets with their names and keys. */}}
{{- define "tunewheel.environment" -}}
{{- $file := .root.Files.Get "files/environment.yaml" | fromYaml }}
{{- $principal := include "tunewheel.principal" . | fromJson }}
{{- $context := dict "Values" .root.Values "Template" .root.Template "service" .name "clientCertificate" $principal.clientSecret "saslUsername" $principal.saslUsername "saslSecret" $principal.saslSecret "engineUrls" (include "tunewheel.engineUrls" .root) "siblings" (printf "%s://%s" (ternary "https" "http" (ne .root.Values.tls.existingSecret "")) (include "tunewheel.fullname" .root)) }}
{{- $groups := list "all" .name }}
{{- if .facts.bus }}{{ $groups = append $groups "bus" }}{{ end }}
{{- $variables := dict }}
{{- $secrets := dict }}
{{- range $group := $groups }}
{{- range $name, $template := (index $file.variables $group) }}
{{- with tpl $template $context }}{{ $_ := set $variables $name . }}{{ end }}
{{- end }}
{{- range $name, $from := (index $file.secrets $group) }}
{{- $secret := tpl $from.secret $context }}
{{- $key := tpl $from.key $context }}
{{- if and $secret $key }}{{ $_ := set $secrets $name (dict "name" $secret "key" $key) }}{{ end }}
{{- end }}
{{- end }}
{{- range $name, $value := .values.settings }}
{{- /* A number of YAML is a float here: 4194304 would read 4.194304e+06. */}}
{{- $whole := and (kindIs "float64" $value) (eq (toString $value) (toString (float64 (int64 $value)))) }}
{{- $_ := set $variables (printf "TUNEWHEEL_%s" (upper $name)) (ternary (int64 $value | toString) (toString $value) $whole) }}
{{- end }}
{{- toJson (dict "variables" $variables "secrets" $secrets) }}
{{- end }}
