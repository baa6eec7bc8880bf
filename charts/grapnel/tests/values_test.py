"""Tests of the manifests: each one renders the chart with HELM and checks the result."""

import base64
import json
import os
import pathlib
import re
import subprocess
import unittest

import yaml

CHART = pathlib.Path(__file__).parent.parent
ROOT = CHART.parent.parent
EVERYTHING = CHART / "tests" / "everything.yaml"


class Refused(Exception):
    """Helm refused to render the chart."""


def render(*sets: str, values: pathlib.Path | None = None, release: str = "grapnel", text: bool = False,
           kubernetes: str | None = None):
    """Returns the objects by (kind, name), or the text of the NOTES."""
    command = [os.environ["HELM"], "template", release, str(CHART), "--namespace", "platform"]
    if text:
        command = [os.environ["HELM"], "install", release, str(CHART), "--namespace", "platform", "--dry-run=client"]
    for value in sets:
        command += ["--set", value]
    if values:
        command += ["--values", str(values)]
    if kubernetes:
        command += ["--kube-version", kubernetes]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        raise Refused(result.stderr)
    if text:
        return result.stdout
    documents = [document for document in yaml.safe_load_all(result.stdout) if document]
    def key(document):
        namespace = document["metadata"].get("namespace", "platform")
        name = document["metadata"]["name"]
        return document["kind"], name if namespace == "platform" else f"{name}@{namespace}"
    objects = {key(document): document for document in documents}
    assert len(objects) == len(documents), "two objects of one kind and name"
    return objects


def pod_specs(objects):
    """Every pod of the objects, by the kind and name of its object."""
    for key, document in objects.items():
        if document["kind"] == "Pod":
            yield key, document["spec"]
        elif "template" in document.get("spec", {}):
            yield key, document["spec"]["template"]["spec"]


def variables(container):
    return {variable["name"]: variable for variable in container.get("env", [])}


def secret_of(variable):
    reference = variable["valueFrom"]["secretKeyRef"]
    return reference["name"], reference["key"]


class Rendering(unittest.TestCase):
    def test_every_pod_meets_the_restricted_standard(self):
        for objects in (render(), render(values=EVERYTHING)):
            self.assertTrue(objects)
            for key, spec in pod_specs(objects):
                with self.subTest(key):
                    self.assertTrue(spec["securityContext"]["runAsNonRoot"])
                    self.assertGreater(spec["securityContext"]["runAsUser"], 0)
                    self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                    self.assertEqual(spec["automountServiceAccountToken"], spec["serviceAccountName"] == "grapnel-controller")
                    for container in spec["containers"]:
                        security = container["securityContext"]
                        self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                        self.assertFalse(security["allowPrivilegeEscalation"])
                        self.assertTrue(security["readOnlyRootFilesystem"])
                        self.assertIn("memory", container["resources"]["limits"])

    def test_selectors_select_their_pods_and_only_those(self):
        objects = render(values=EVERYTHING)
        pods = {key: document["spec"]["template"]["metadata"]["labels"] for key, document in objects.items()
                if "template" in document.get("spec", {})}
        for name in ("api", "controller"):
            deployment = objects["Deployment", f"grapnel-{name}"]
            selector = deployment["spec"]["selector"]["matchLabels"].items()
            selected = [key for key, labels in pods.items() if selector <= labels.items()]
            self.assertEqual(selected, [("Deployment", f"grapnel-{name}")])
        service = objects["Service", "grapnel-api"]["spec"]["selector"].items()
        self.assertEqual([key for key, labels in pods.items() if service <= labels.items()], [("Deployment", "grapnel-api")])

    def test_names_have_the_release_in_them(self):
        objects = render(release="hooks")
        for (kind, name) in objects:
            if kind != "CustomResourceDefinition":
                self.assertTrue(name.startswith(("hooks-grapnel-", "platform-hooks-grapnel-")), (kind, name))

    def test_every_label_set_is_common(self):
        objects = render(values=EVERYTHING)
        for key, document in objects.items():
            if key[0] != "CustomResourceDefinition" and not key[1].endswith("-extra"):
                self.assertEqual(document["metadata"]["labels"].get("team"), "hooks", key)

    def test_the_definition_can_be_left_out(self):
        name = ("CustomResourceDefinition", "integrations.grapnel.dev")
        self.assertIn(name, render())
        self.assertNotIn(name, render("crds.enabled=false"))
        self.assertEqual(render()[name]["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")


class KubernetesVersion(unittest.TestCase):
    def test_the_oldest_supported_release_is_the_same_everywhere(self):
        def found(path, pattern):
            matches = set(re.findall(pattern, (ROOT / path).read_text()))
            self.assertTrue(matches, f"{path} does not name a release of Kubernetes")
            return matches
        (tested,) = found("hack/cluster/kubernetes/go.mod", r"k8s\.io/kubernetes v1\.(\d+)\.")
        for path, pattern in (
            ("charts/grapnel/Chart.yaml", r'kubeVersion: ">=1\.(\d+)\.0-0"'),
            ("charts/grapnel-crds/Chart.yaml", r'kubeVersion: ">=1\.(\d+)\.0-0"'),
            ("charts/grapnel/README.md.head", r"Kubernetes 1\.(\d+) or newer"),
            ("docs/install.md", r"Kubernetes 1\.(\d+) or newer"),
            ("Cargo.toml", r'k8s-openapi = .*"v1_(\d+)"'),
        ):
            with self.subTest(path):
                self.assertEqual(found(path, pattern), {tested})

    def test_an_older_release_is_refused(self):
        with self.assertRaisesRegex(Refused, "incompatible with Kubernetes"):
            render(kubernetes="1.32.0")


class Credentials(unittest.TestCase):
    def test_generated_ones_are_kept_and_fit_together(self):
        secret = render()["Secret", "grapnel-credentials"]
        self.assertEqual(secret["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")
        data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        self.assertEqual(data["database-url"], f"postgres://grapnel:{data['postgres-password']}@grapnel-postgres:5432/grapnel")
        self.assertEqual(data["rabbitmq-url"], f"amqp://grapnel:{data['rabbitmq-password']}@grapnel-rabbitmq:5672/%2f")
        self.assertEqual(data["redis-url"], f"redis://default:{data['redis-password']}@grapnel-redis:6379/0")
        self.assertRegex(data["sealing-keys"], r"^first:[A-Za-z0-9+/]{43}=$")
        self.assertGreaterEqual(len(data["management-key"]), 16)

    def test_with_secrets_of_the_users_there_is_none(self):
        objects = render(values=EVERYTHING)
        self.assertFalse([key for key in objects if key[0] == "Secret" and key[1] != "grapnel-test"])
        env = variables(objects["Deployment", "grapnel-api"]["spec"]["template"]["spec"]["containers"][0])
        self.assertEqual(secret_of(env["DATABASE_URL"]), ("datastores", "postgres"))
        self.assertEqual(secret_of(env["REDIS_URL"]), ("datastores", "redis"))
        self.assertEqual(secret_of(env["RABBITMQ_URL"]), ("datastores", "rabbitmq"))
        self.assertEqual(secret_of(env["MANAGEMENT_API_KEY"]), ("grapnel-keys", "management-key"))
        self.assertEqual(secret_of(env["MANAGEMENT_API_KEY_PREVIOUS"]), ("grapnel-keys", "previous"))
        self.assertEqual(secret_of(env["GRAPNEL_SEALING_KEYS"]), ("grapnel-keys", "sealing-keys"))

    def test_a_url_goes_into_the_secret_and_not_into_a_pod(self):
        url = "postgres://u:hidden@db.example.com/grapnel"
        objects = render(f"external.postgres.url={url}")
        text = yaml.safe_dump({str(key): document for key, document in objects.items() if key[0] != "Secret"})
        self.assertNotIn("hidden", text)
        self.assertNotIn(("StatefulSet", "grapnel-postgres"), objects)
        self.assertIn(("StatefulSet", "grapnel-redis"), objects)

    def test_every_reference_to_the_secret_is_in_it(self):
        objects = render()
        keys = set(objects["Secret", "grapnel-credentials"]["data"])
        text = yaml.safe_dump([spec for _, spec in pod_specs(objects)]) + objects["ConfigMap", "grapnel-workers"]["data"]["pod.yaml"]
        used = set()
        for match in re.finditer(r"key: (\S+)\n\s+name: grapnel-credentials|name: grapnel-credentials\n\s+key: (\S+)", text):
            used.add(match[1] or match[2])
        self.assertEqual(used, keys)

    def test_nothing_is_generated_where_that_is_refused(self):
        with self.assertRaisesRegex(Refused, "credentials.generate is false"):
            render("credentials.generate=false")

    def test_without_bundled_datastores_each_must_be_given(self):
        with self.assertRaisesRegex(Refused, "external.postgres has neither"):
            render("bundled.enabled=false")

    def test_a_url_and_a_secret_contradict_each_other(self):
        with self.assertRaisesRegex(Refused, "external.redis: give url or existingSecret"):
            render("external.redis.url=redis://a", "external.redis.existingSecret=b")

    def test_pods_roll_when_a_credential_in_the_values_changes_and_not_otherwise(self):
        def checksum(*sets):
            template = render(*sets)["Deployment", "grapnel-api"]["spec"]["template"]
            return template["metadata"]["annotations"]["checksum/credentials"]
        self.assertEqual(checksum(), checksum())
        self.assertNotEqual(checksum(), checksum("external.redis.url=redis://a"))


class Migration(unittest.TestCase):
    @staticmethod
    def job(*sets):
        (found,) = [document for key, document in render(*sets).items() if key[0] == "Job" and "-migrate-" in key[1]]
        return found

    def test_the_same_values_give_the_same_job(self):
        self.assertEqual(self.job(), self.job())

    def test_another_image_gives_another_job(self):
        self.assertNotEqual(self.job()["metadata"]["name"], self.job("images.runtime.tag=v2")["metadata"]["name"])

    def test_it_is_no_hook(self):
        self.assertNotIn("annotations", self.job()["metadata"])


class Access(unittest.TestCase):
    def test_listed_namespaces_get_roles_and_the_cluster_none(self):
        objects = render("controller.watchNamespaces={shop,billing}", "rbac.aggregateRoles=false")
        self.assertFalse([key for key in objects if key[0].startswith("ClusterRole")])
        roles = {name for kind, name in objects if kind == "Role"}
        self.assertEqual(roles, {"grapnel-controller", "platform-grapnel-controller@shop", "platform-grapnel-controller@billing"})

    def test_only_the_controller_has_a_token(self):
        with_token = {key for key, spec in pod_specs(render()) if spec["automountServiceAccountToken"]}
        self.assertEqual(with_token, {("Deployment", "grapnel-controller"), ("Job", "grapnel-uninstall")})

    def test_nobody_may_write_secrets(self):
        for key, document in render().items():
            for rule in document.get("rules") or []:
                if "secrets" in rule["resources"]:
                    self.assertLessEqual(set(rule["verbs"]), {"get", "list", "watch"}, key)
                self.assertNotIn("*", rule["verbs"] + rule["resources"], key)

    def test_captured_secrets_need_one_right_more_and_only_where_it_watches(self):
        def rules(*sets):
            return [(key, rule) for key, document in render(*sets).items() for rule in document.get("rules") or []]
        expected = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"]}
        more = [rule for rule in rules("controller.captureSecrets=true") if rule not in rules()]
        self.assertEqual(more, [(("ClusterRole", "platform-grapnel-controller"), expected)])
        watched = "controller.watchNamespaces={shop}"
        more = [rule for rule in rules(watched, "controller.captureSecrets=true") if rule not in rules(watched)]
        self.assertEqual(more, [(("Role", "platform-grapnel-controller@shop"), expected)])

    def test_users_may_not_write_status(self):
        for key, document in render().items():
            if "aggregate-to" in yaml.safe_dump(document["metadata"].get("labels", {})):
                for rule in document["rules"]:
                    if "integrations/status" in rule["resources"]:
                        self.assertLessEqual(set(rule["verbs"]), {"get", "list", "watch"}, key)


class Traffic(unittest.TestCase):
    def test_webhooks_and_management_are_separate(self):
        objects = render(values=EVERYTHING)
        def paths(name):
            return [path["path"] for path in objects["Ingress", name]["spec"]["rules"][0]["http"]["paths"]]
        self.assertEqual(paths("grapnel-webhooks"), ["/api/v1/webhooks"])
        self.assertFalse([path for path in paths("grapnel-management") if "/api/v1/webhooks".startswith(path)])

    def test_the_management_paths_are_those_of_the_api(self):
        sources = "".join(path.read_text() for path in (ROOT / "runtime/src/management").rglob("*.rs"))
        served = {"/api/v1/" + name for name in re.findall(r'path = "/(?:api/v1/)?([a-z-]+)', sources)} - {"/api/v1/internal", "/api/v1/webhooks"}
        self.assertIn("/api/v1/events", served)
        objects = render(values=EVERYTHING)
        routed = {path["path"] for path in objects["Ingress", "grapnel-management"]["spec"]["rules"][0]["http"]["paths"]}
        self.assertLessEqual(served, routed)

    def test_api_and_controller_know_the_public_url(self):
        objects = render("publicUrl=https://hooks.example.com")
        for name in ("grapnel-api", "grapnel-controller"):
            container = objects["Deployment", name]["spec"]["template"]["spec"]["containers"][0]
            self.assertEqual(variables(container)["GRAPNEL_PUBLIC_URL"]["value"], "https://hooks.example.com", name)

    def test_a_route_needs_a_gateway(self):
        with self.assertRaisesRegex(Refused, "webhooks.httpRoute.parentRefs"):
            render("webhooks.httpRoute.enabled=true")

    def test_integrations_set_of_workers_only_what_is_permitted(self):
        def permitted(*sets):
            return yaml.safe_load(render(*sets)["ConfigMap", "grapnel-workers"]["data"]["pod.yaml"])["permitted"]
        nothing = permitted()
        self.assertEqual(nothing.pop("maxResources"), {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "2Gi"})
        self.assertEqual(set(map(tuple, nothing.values())), {()})
        self.assertEqual(permitted("workers.permitted.labels={team}")["labels"], ["team"])

    def test_a_route_for_webhooks_needs_its_proxies(self):
        gateway = "webhooks.httpRoute.parentRefs[0].name=public"
        for sets in (["webhooks.ingress.enabled=true"], ["webhooks.httpRoute.enabled=true", gateway]):
            with self.subTest(sets):
                with self.assertRaisesRegex(Refused, "api.trustedProxies: set the networks of the ingress controller"):
                    render(*sets)
                objects = render(*sets, "api.trustedProxies={10.0.0.0/8}")
                container = objects["Deployment", "grapnel-api"]["spec"]["template"]["spec"]["containers"][0]
                self.assertEqual(variables(container)["GRAPNEL_TRUSTED_PROXIES"]["value"], "10.0.0.0/8")
        # It limits nothing by the client's address.
        render("management.ingress.enabled=true")

    def test_api_and_workers_obey_one_egress_policy(self):
        objects = render("allowedDestinationCidrs={10.0.0.0/8}")
        container = objects["Deployment", "grapnel-api"]["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(variables(container)["GRAPNEL_ALLOWED_DESTINATION_CIDRS"]["value"], "10.0.0.0/8")

    def test_workers_reach_no_private_network_unless_allowed(self):
        def blocks(*sets):
            policy = render(*sets)["NetworkPolicy", "grapnel-worker"]
            return [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
        self.assertIn("10.0.0.0/8", blocks()[0]["except"])
        self.assertEqual([block["cidr"] for block in blocks()], ["0.0.0.0/0", "::/0"])
        self.assertIn({"cidr": "10.0.0.0/8"}, blocks("allowedDestinationCidrs={10.0.0.0/8}"))

    def test_the_api_fetches_certificates_from_outside_and_from_nowhere_else(self):
        policy = render()["NetworkPolicy", "grapnel-api"]
        outside = [rule for rule in policy["spec"]["egress"] if any("ipBlock" in peer for peer in rule.get("to", []))]
        self.assertEqual([port["port"] for rule in outside for port in rule["ports"]], [443])
        self.assertIn("10.0.0.0/8", outside[0]["to"][0]["ipBlock"]["except"])

    def test_the_replicas_of_an_autoscaled_api_are_left_alone(self):
        self.assertNotIn("replicas", render("api.autoscaling.enabled=true")["Deployment", "grapnel-api"]["spec"])


class Monitoring(unittest.TestCase):
    def test_only_metrics_that_exist_are_asked_for(self):
        folders = [ROOT / "runtime/src", ROOT / "controller/src", *ROOT.glob("crates/*/src")]
        sources = "".join(path.read_text() for folder in folders for path in folder.rglob("*.rs"))
        exist = set(re.findall(r'"(grapnel_[a-z_]+)"', sources))
        for name in ("alerts.yaml", "dashboard.json"):
            used = set(re.findall(r"grapnel_[a-z_]+", (CHART / "files" / name).read_text()))
            self.assertTrue(used)
            missing = {metric for metric in used if metric not in exist and metric.removesuffix("_bucket") not in exist}
            self.assertFalse(missing, name)

    def test_every_alert_is_explained(self):
        alerts = [rule["alert"] for rule in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())]
        guide = (ROOT / "docs/operations.md").read_text()
        self.assertFalse([alert for alert in alerts if alert not in guide])


class HelmTest(unittest.TestCase):
    @staticmethod
    def container(*sets):
        return render(*sets)["Pod", "grapnel-test"]["spec"]["containers"][0]

    def arguments(self, *sets):
        return self.container(*sets)["args"]

    def test_its_image_is_the_load_generator(self):
        image = self.container("images.loadtest.repository=registry/loadtest", "images.loadtest.tag=v2")["image"]
        self.assertEqual(image, "registry/loadtest:v2")
        self.assertEqual(self.arguments()[0], "run")

    def test_it_receives_where_that_is_allowed(self):
        self.assertIn("--no-sink", self.arguments())
        self.assertIn("--sink-addr=0.0.0.0:9099", self.arguments("allowedDestinationCidrs={10.0.0.0/8}"))

    def test_everything_of_it_is_a_hook_and_goes_away(self):
        found = [document for key, document in render().items() if key[1] == "grapnel-test"]
        self.assertEqual({document["kind"] for document in found}, {"Pod", "Secret", "Service", "Integration"})
        for document in found:
            self.assertEqual(document["metadata"]["annotations"]["helm.sh/hook"], "test")
            self.assertIn("hook-succeeded", document["metadata"]["annotations"]["helm.sh/hook-delete-policy"])


class Schema(unittest.TestCase):
    def test_unknown_values_are_refused_at_every_level(self):
        for value in ("unknown=1", "api.replica=1", "external.mysql.url=a", "images.runtime.tagg=1", "api.service.ports=1"):
            with self.subTest(value), self.assertRaises(Refused):
                render(value)

    def test_values_out_of_range_are_refused(self):
        for value in ("environment=test", "allowedDestinationCidrs={10.0.0.0}", "controller.maxWorkersPerIntegration=0",
                      "controller.maxWorkersPerNamespace=0", "controller.maxIntegrationsPerNamespace=0", "workers.permitted.labels=a",
                      "workers.permitted.images={a}",
                      "external.postgres.url=mysql://a", "api.service.type=None"):
            with self.subTest(value), self.assertRaises(Refused):
                render(value)

    def test_every_value_is_in_the_schema(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        def compare(values, schema, path):
            properties = schema.get("properties")
            if not isinstance(values, dict) or properties is None:
                return
            for name, value in values.items():
                self.assertIn(name, properties, path)
                compare(value, properties[name], f"{path}.{name}")
        compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "values")


# Helm 3 connects to the cluster even if nothing is to be installed.
@unittest.skipIf(os.environ["HELM"].endswith("helm3"), "Helm 3 prints notes with a cluster only")
class Notes(unittest.TestCase):
    def test_they_warn_of_what_is_for_evaluation(self):
        text = render(text=True)
        self.assertIn("WARNING: postgres, redis, rabbitmq run as a single pod each", text)
        self.assertIn("credentials.generate=false", text)
        self.assertIn("/api/v1/webhooks/acme", text)
        self.assertNotIn("WARNING", render(values=EVERYTHING, text=True))


if __name__ == "__main__":
    unittest.main()
