"""A control plane for the manifests, as the tests of real clusters have it; for this folder's a new one."""

from rl.kubernetes import conftest as clusters

kubeconfig = clusters.kubeconfig
admin = clusters.admin

if clusters.GIVEN:
    no_network = clusters.no_network
