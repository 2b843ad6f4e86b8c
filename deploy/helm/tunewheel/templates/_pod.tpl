{{/* The pod of a service. Takes root, name, values, facts, kind. */}}
{{- define "tunewheel.pod" -}}
{{- $environment := include "tunewheel.environment" . | fromJson }}
{{- $principal := include "tunewheel.principal" . | fromJson }}
{{- $global := .root.Values }}
{{- /* No policy of a service's own pods may count those of its Jobs. */}}
{{- $selected := dict "root" .root "name" (ternary (printf "%s-run" .name) .name (eq .kind "Job")) }}
{{- $scheme := ternary "HTTPS" "HTTP" (ne $global.tls.existingSecret "") }}
metadata:
  labels:
    {{- include "tunewheel.selector" $selected | nindent 4 }}
    {{- with .values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/settings: {{ toJson $environment.variables | sha256sum }}
    {{- if and ((.values.jobs | default dict).enabled) (ne .kind "Job") }}
    # The service reads the template of its Jobs when it starts.
    checksum/job: {{ toJson .values | sha256sum }}
    {{- end }}
    {{- with .values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  {{- $launches := and (eq .name "train") ((.values.jobs | default dict).enabled) (ne .kind "Job") }}
  serviceAccountName: {{ include "tunewheel.serviceAccount" . }}
  # The service that makes the Jobs of runs asks the API server for them.
  automountServiceAccountToken: {{ ternary true false (not (not $launches)) }}
  enableServiceLinks: false
  {{- if and (eq .kind "Job") (gt (int ((.values.settings | default dict).train_nodes | default 1)) 1) }}
  # By which the pods of one run find the first of them.
  subdomain: {{ include "tunewheel.fullname" .root }}-train-runs
  {{- end }}
  terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds | int64 }}
  {{- with $global.image.pullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ $global.podSecurity.runAsUser | int64 }}
    runAsGroup: {{ $global.podSecurity.runAsGroup | int64 }}
    fsGroup: {{ $global.podSecurity.fsGroup | int64 }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with .values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{ include "tunewheel.selector" $selected | nindent 10 }}
  {{- with .values.extraInitContainers }}
  initContainers: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      {{- /* The service that has Jobs train needs none of what trains. */}}
      image: {{ include "tunewheel.image" (dict "root" .root "name" (ternary "train-launcher" .name (not (not $launches))) "values" .values) }}
      imagePullPolicy: {{ $global.image.pullPolicy }}
      {{- if eq .kind "Job" }}
      command: [tunewheel-train-run]
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      envFrom:
        - configMapRef: {name: {{ include "tunewheel.fullname" .root }}-{{ .name }}}
        {{- if and .facts.bus $global.store.existingSecret }}
        - secretRef: {name: {{ $global.store.existingSecret }}}
        {{- end }}
        {{- with .values.extraEnvFrom }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- $instance := and .facts.bus (eq .kind "StatefulSet") }}
      {{- if or $instance $environment.secrets .values.extraEnv }}
      env:
        {{- if $instance }}
        - name: TUNEWHEEL_INSTANCE
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- end }}
        {{- range $name, $from := $environment.secrets }}
        - name: {{ $name }}
          valueFrom: {secretKeyRef: {name: {{ $from.name }}, key: {{ $from.key }}}}
        {{- end }}
        {{- with .values.extraEnv }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- end }}
      ports:
        {{- if .facts.api }}
        - {name: http, containerPort: 8080}
        {{- end }}
        - {name: health, containerPort: 9090}
      # A base model may be fetched before the first answer: twenty minutes.
      startupProbe:
        httpGet: {path: /health/live, port: health, scheme: {{ $scheme }}}
        periodSeconds: 5
        failureThreshold: 240
      livenessProbe:
        httpGet: {path: /health/live, port: health, scheme: {{ $scheme }}}
        periodSeconds: 15
        timeoutSeconds: 5
        failureThreshold: 4
      readinessProbe:
        httpGet: {path: /health/ready, port: health, scheme: {{ $scheme }}}
        periodSeconds: 5
        timeoutSeconds: 5
      {{- if .facts.api }}
      lifecycle:
        # Until every node has heard that this pod is going, new connections still come.
        preStop: {sleep: {seconds: 5}}
      {{- end }}
      resources:
        {{- $resources := deepCopy (.values.resources | default dict) }}
        {{- if .values.gpus }}
        {{- $limits := merge (dict $global.gpuResource .values.gpus) ($resources.limits | default dict) }}
        {{- $_ := set $resources "limits" $limits }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /var/lib/tunewheel}
        - {name: tmp, mountPath: /tmp}
        {{- if .values.gpus }}
        - {name: shared-memory, mountPath: /dev/shm}
        {{- end }}
        {{- if and .facts.bus (not $global.store.url) }}
        - {name: store, mountPath: /srv/store}
        {{- end }}
        {{- if has .name (list "engine" "serve-gateway") }}
        - {name: adapters, mountPath: /srv/adapters{{ if eq .name "engine" }}, readOnly: true{{ end }}}
        {{- end }}
        {{- if $global.identity.apiKeys.existingSecret }}
        - {name: identity, mountPath: /etc/tunewheel/identity, readOnly: true}
        {{- end }}
        {{- if and .facts.bus $global.identity.signing.publicKeys }}
        - {name: signing, mountPath: /etc/tunewheel/signing, readOnly: true}
        {{- end }}
        {{- if $global.tls.existingSecret }}
        - {name: tls, mountPath: /etc/tunewheel/tls, readOnly: true}
        {{- end }}
        {{- if and (eq .name "serve-gateway") $global.engine.caSecret }}
        - {name: engine-ca, mountPath: /etc/tunewheel/engine-ca, readOnly: true}
        {{- end }}
        {{- if $launches }}
        - {name: train-job, mountPath: /etc/tunewheel/train-job, readOnly: true}
        {{- end }}
        {{- if .facts.bus }}
        {{- include "tunewheel.kafkaMounts" (dict "root" .root "principal" $principal) | nindent 8 }}
        {{- end }}
        {{- with .values.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    {{- if not ((.values.persistence | default dict).enabled) }}
    - name: data
      emptyDir: {{ toYaml (.values.scratch | default dict) | nindent 8 }}
    {{- end }}
    - name: tmp
      emptyDir: {}
    {{- if .values.gpus }}
    - name: shared-memory
      emptyDir: {medium: Memory, sizeLimit: {{ .values.sharedMemory | default "8Gi" }}}
    {{- end }}
    {{- if and .facts.bus (not $global.store.url) }}
    - name: store
      persistentVolumeClaim: {claimName: {{ include "tunewheel.storeClaim" .root }}}
    {{- end }}
    {{- if has .name (list "engine" "serve-gateway") }}
    - name: adapters
      {{- if $global.adapters.perPod }}
      emptyDir: {sizeLimit: {{ $global.adapters.size }}}
      {{- else if $global.adapters.existingClaim }}
      persistentVolumeClaim: {claimName: {{ $global.adapters.existingClaim }}}
      {{- else }}
      persistentVolumeClaim: {claimName: {{ include "tunewheel.fullname" .root }}-adapters}
      {{- end }}
    {{- end }}
    {{- with $global.identity.apiKeys }}
    {{- if .existingSecret }}
    - name: identity
      secret: {secretName: {{ .existingSecret }}, items: [{key: {{ ternary .engineKey .key (eq $.name "engine") }}, path: keys.yaml}]}
    {{- end }}
    {{- end }}
    {{- if and .facts.bus $global.identity.signing.publicKeys }}
    - name: signing
      configMap: {name: {{ $global.identity.signing.publicKeys }}}
    {{- end }}
    {{- with $global.tls.existingSecret }}
    - name: tls
      secret: {secretName: {{ . }}}
    {{- end }}
    {{- if eq .name "serve-gateway" }}
    {{- with $global.engine.caSecret }}
    - name: engine-ca
      secret: {secretName: {{ . }}, items: [{key: {{ $global.engine.caKey }}, path: ca.crt}]}
    {{- end }}
    {{- end }}
    {{- if $launches }}
    - name: train-job
      configMap: {name: {{ include "tunewheel.fullname" .root }}-train-job}
    {{- end }}
    {{- if .facts.bus }}
    {{- include "tunewheel.kafkaVolumes" (dict "root" .root "principal" $principal) | nindent 4 }}
    {{- end }}
    {{- with .values.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end }}

{{- define "tunewheel.kafkaMounts" -}}
{{- if .root.Values.kafka.tls.caSecret }}
- {name: kafka-ca, mountPath: /etc/tunewheel/kafka-ca, readOnly: true}
{{- end }}
{{- if .principal.clientSecret }}
- {name: kafka-client, mountPath: /etc/tunewheel/kafka-client, readOnly: true}
{{- end }}
{{- if .root.Values.kafka.sasl.oauth.serviceAccountToken.audience }}
- {name: kafka-token, mountPath: /var/run/secrets/kafka, readOnly: true}
{{- end }}
{{- end }}

{{- define "tunewheel.kafkaVolumes" -}}
{{- $kafka := .root.Values.kafka }}
{{- if $kafka.tls.caSecret }}
- name: kafka-ca
  secret: {secretName: {{ $kafka.tls.caSecret }}, items: [{key: {{ $kafka.tls.caKey }}, path: ca.crt}]}
{{- end }}
{{- with .principal.clientSecret }}
- name: kafka-client
  secret:
    secretName: {{ . }}
    items:
      - {key: {{ $kafka.tls.certificateKey }}, path: tls.crt}
      - {key: {{ $kafka.tls.privateKeyKey }}, path: tls.key}
{{- end }}
{{- with $kafka.sasl.oauth.serviceAccountToken }}
{{- if .audience }}
- name: kafka-token
  projected:
    sources:
      - serviceAccountToken: {path: token, audience: {{ .audience }}, expirationSeconds: {{ .expirationSeconds | int64 }}}
{{- end }}
{{- end }}
{{- end }}
