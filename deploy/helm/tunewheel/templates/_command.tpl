{{/* The spec of a pod that runs one command of the command line. Takes root, principal (who it is to Kafka), values
(image, resources, nodeSelector, tolerations), args, and store: whether the command needs the object store, by the
identity of the services where a cloud knows them by it. A command that needs no store may run before an installation,
when the service account does not exist yet. */}}
{{- define "tunewheel.command" -}}
{{- $context := dict "root" .root "name" .principal "values" (dict "settings" dict) "facts" (dict "bus" true) }}
{{- $environment := include "tunewheel.environment" $context | fromJson }}
{{- $principal := include "tunewheel.principal" $context | fromJson }}
{{- $global := .root.Values }}
{{- $variables := pick $environment.variables "TUNEWHEEL_BOOTSTRAP_SERVERS" "TUNEWHEEL_TOPIC_PREFIX" "TUNEWHEEL_SECURITY_PROTOCOL" "TUNEWHEEL_SSL_CAFILE" "TUNEWHEEL_SSL_CERTFILE" "TUNEWHEEL_SSL_KEYFILE" "TUNEWHEEL_SASL_MECHANISM" "TUNEWHEEL_SASL_USERNAME" "TUNEWHEEL_SASL_OAUTH_TOKEN_FILE" "TUNEWHEEL_SASL_OAUTH_TOKEN_URL" "TUNEWHEEL_SASL_OAUTH_CLIENT_ID" "TUNEWHEEL_SASL_OAUTH_SCOPE" (ternary "TUNEWHEEL_STORE_URL" "" .store) }}
restartPolicy: Never
{{- if .store }}
serviceAccountName: {{ include "tunewheel.serviceAccount" (dict "root" .root "name" "doctor") }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $global.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $global.podSecurity.runAsUser | int64 }}
  runAsGroup: {{ $global.podSecurity.runAsGroup | int64 }}
  fsGroup: {{ $global.podSecurity.fsGroup | int64 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ index .args 1 }}
    image: {{ include "tunewheel.image" (dict "root" .root "name" "cli" "values" .values) }}
    imagePullPolicy: {{ $global.image.pullPolicy }}
    args: {{ toJson .args }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    {{- if and .store $global.store.existingSecret }}
    envFrom:
      - secretRef: {name: {{ $global.store.existingSecret }}}
    {{- end }}
    env:
      {{- range $variable, $value := $variables }}
      - {name: {{ $variable }}, value: {{ $value | quote }}}
      {{- end }}
      {{- range $variable, $from := pick $environment.secrets "TUNEWHEEL_SASL_PASSWORD" "TUNEWHEEL_SASL_OAUTH_CLIENT_SECRET" }}
      - name: {{ $variable }}
        valueFrom: {secretKeyRef: {name: {{ $from.name }}, key: {{ $from.key }}}}
      {{- end }}
    resources: {{ toYaml .values.resources | nindent 6 }}
    volumeMounts:
      - {name: data, mountPath: /var/lib/tunewheel}
      - {name: tmp, mountPath: /tmp}
      {{- if and .store (not $global.store.url) }}
      - {name: store, mountPath: /srv/store}
      {{- end }}
      {{- include "tunewheel.kafkaMounts" (dict "root" .root "principal" $principal) | nindent 6 }}
volumes:
  - {name: data, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  {{- if and .store (not $global.store.url) }}
  - {name: store, persistentVolumeClaim: {claimName: {{ include "tunewheel.storeClaim" .root }}}}
  {{- end }}
  {{- include "tunewheel.kafkaVolumes" (dict "root" .root "principal" $principal) | nindent 2 }}
{{- end }}
