"""Renders deploy/helm/usher with Helm's own library and validates what comes out.

`scripts/lint-deploy.sh` runs it in its venv. Two sets of values are rendered: the defaults, and
everything switched on. Each object is checked against the schemas of Kubernetes, the alerts by
promtool where it is installed, and the objects against each other. Wrong values must be refused.
"""

import shutil
import subprocess
import sys
import tempfile

import helm_python
import kubernetes_validate
import yaml

CHART = "deploy/helm/usher"
RUNBOOK = "https://wiki.example/usher/docs"
EVERYTHING = {
    "imagePullSecrets": [{"name": "registry"}],
    "settings": {"USHER_TRUSTED_PROXIES": 2, "USHER_REDIS_WAIT_AOF": True},
    "secret": {"env": [{"name": "USHER_MYSQL_URL", "secret": "mysql-usher", "key": "url"}]},
    "autoscaling": {"inFlight": 400},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
        "hosts": ["usher.example"],
        "tls": [{"secretName": "usher-tls", "hosts": ["usher.example"]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {
        "enabled": True, "labels": {"release": "prometheus"}, "runbookBase": RUNBOOK + "/",
    },
    "volumes": [{"name": "keys", "secret": {"secretName": "usher-files"}}],
    "volumeMounts": [{"name": "keys", "mountPath": "/etc/usher", "readOnly": True}],
    "podAnnotations": {"team": "tickets"},
    "nodeSelector": {"kubernetes.io/arch": "arm64"},
    "tolerations": [{"key": "sale", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}
REFUSED = {
    "an unknown value": {"replicaCount": 3},
    "a secret among the settings": {"settings": {"USHER_ADMIN_KEYS": "ops:viewer:0"}},
    "a setting that the chart sets": {"settings": {"USHER_LISTEN": "0.0.0.0:80"}},
    "a name that is no setting": {"settings": {"usher_auth": "jwt"}},
    "an Ingress without a host": {"ingress": {"enabled": True}},
    "no replica": {"replicas": 0},
    "a drain beyond its limit": {"drainSeconds": 3601},
    "a reference without its key": {"secret": {"env": [{"name": "USHER_MYSQL_URL", "secret": "x"}]}},
    "an admin port open to all": {"networkPolicy": {"adminNamespaceLabels": None}},
}


def render(chart, values):
    """The objects of a release, by kind and name."""
    objects = {}
    for text in chart.render(values, name="usher", namespace="sale").values():
        for item in filter(None, yaml.safe_load_all(text)):
            objects[item["kind"], item["metadata"]["name"]] = item
    return objects


def check(condition, message):
    if not condition:
        sys.exit(f"{CHART}: {message}")


def check_rules(item):
    """Promtool reads the specification of a PrometheusRule as it reads a rule file."""
    for group in item["spec"]["groups"]:
        for rule in group["rules"]:
            link = rule.get("annotations", {}).get("runbook_url", RUNBOOK + "/")
            check(link.startswith(RUNBOOK + "/"), f"{rule.get('alert')} links to {link}")
    if not shutil.which("promtool"):
        print("SKIPPED: lint-deploy: rules of the chart: promtool is not installed")
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(item["spec"], file)
        file.flush()
        done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True)
        check(done.returncode == 0, done.stderr.decode())


def check_monitor(item, objects):
    """It must find exactly the admin service, under the job name of the alerts."""
    wanted = item["spec"]["selector"]["matchLabels"].items()
    found = [
        name for (kind, name), other in objects.items()
        if kind == "Service" and wanted <= other["metadata"]["labels"].items()
    ]
    check(found == ["usher-admin"], f"the ServiceMonitor finds the services {found}")
    service = objects["Service", "usher-admin"]
    check(service["metadata"]["labels"][item["spec"]["jobLabel"]] == "usher", "job is not usher")
    ports = [port["name"] for port in service["spec"]["ports"]]
    check(item["spec"]["endpoints"][0]["port"] in ports, "the ServiceMonitor names no port")


def check_objects(objects):
    pod = objects["Deployment", "usher"]["spec"]["template"]
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    for (kind, name), item in objects.items():
        if kind == "PrometheusRule":
            check_rules(item)
        elif kind == "ServiceMonitor":
            check_monitor(item, objects)
        else:
            kubernetes_validate.validate(item, "1.37", strict=True)
        if kind == "Service":
            chosen = item["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
            check(chosen, f"service {name} selects no pod")
            check({port["targetPort"] for port in item["spec"]["ports"]} <= ports, f"port of {name}")


def main():
    findings = helm_python.lint(CHART)
    check(not findings["errors"], findings)
    with helm_python.Chart.load(CHART) as chart:
        plain, whole = render(chart, {}), render(chart, EVERYTHING)
        check(len(plain) == 7 and len(whole) == 11, f"{len(plain)} and {len(whole)} objects")
        check_objects(plain)
        check_objects(whole)
        settings = [objects["ConfigMap", "usher"]["data"] for objects in (plain, whole)]
        proxies = [data["USHER_TRUSTED_PROXIES"] for data in settings]
        check(proxies == ["0", "2"], f"trusted proxies {proxies}")
        for what, values in REFUSED.items():
            try:
                chart.render(values, name="usher", namespace="sale")
            except helm_python.HelmError:
                continue
            check(False, f"accepts {what}")
    print(f"lint-deploy: the chart renders {len(plain)} and {len(whole)} valid objects")


if __name__ == "__main__":
    main()
