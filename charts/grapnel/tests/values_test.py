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
                    self.assertEqual(spec["automountServiceAccountToken"], spec["serviceAccountName"] in ("grapnel-controller", "grapnel-manage"))
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
        for name in ("api", "manage", "controller"):
            deployment = objects["Deployment", f"grapnel-{name}"]
            selector = deployment["spec"]["selector"]["matchLabels"].items()
            selected = [key for key, labels in pods.items() if selector <= labels.items()]
            self.assertEqual(selected, [("Deployment", f"grapnel-{name}")])
        for name in ("grapnel-api", "grapnel-manage"):
            service = objects["Service", name]["spec"]["selector"].items()
            self.assertEqual([key for key, labels in pods.items() if service <= labels.items()], [("Deployment", name)])

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
        for definition in ("integrations.grapnel.dev", "replays.grapnel.dev"):
            name = ("CustomResourceDefinition", definition)
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
        self.assertEqual(secret_of(env["GRAPNEL_SEALING_KEYS"]), ("grapnel-keys", "sealing-keys"))

        env = variables(objects["Deployment", "grapnel-manage"]["spec"]["template"]["spec"]["containers"][0])
        self.assertEqual(secret_of(env["DATABASE_URL"]), ("datastores", "postgres"))
        self.assertEqual(secret_of(env["MANAGEMENT_API_KEY"]), ("grapnel-keys", "management-key"))
        self.assertEqual(secret_of(env["MANAGEMENT_API_KEY_PREVIOUS"]), ("grapnel-keys", "previous"))

    def test_only_management_pods_have_the_management_key_and_they_have_no_sealing_key(self):
        for objects in (render(), render(values=EVERYTHING)):
            for key, spec in pod_specs(objects):
                env = {name for container in spec["containers"] for name in variables(container)}
                is_manage = key == ("Deployment", "grapnel-manage")
                self.assertEqual("MANAGEMENT_API_KEY" in env, is_manage, key)
                self.assertFalse(is_manage and "GRAPNEL_SEALING_KEYS" in env)
            self.assertNotIn("MANAGEMENT", objects["ConfigMap", "grapnel-workers"]["data"]["pod.yaml"])

    def test_the_console_is_there_with_its_own_key_and_only_in_management_pods(self):
        def manage(objects):
            return variables(objects["Deployment", "grapnel-manage"]["spec"]["template"]["spec"]["containers"][0])
        objects = render()
        self.assertEqual(secret_of(manage(objects)["GRAPNEL_CONSOLE_SEALING_KEY"]), ("grapnel-credentials", "console-sealing-key"))
        key = base64.b64decode(objects["Secret", "grapnel-credentials"]["data"]["console-sealing-key"]).decode()
        self.assertRegex(key, r"^first:[A-Za-z0-9+/]{43}=$")
        self.assertNotIn("GRAPNEL_IDENTITY_PROXIES", manage(objects))
        for key, spec in pod_specs(objects):
            env = {name for container in spec["containers"] for name in variables(container)}
            self.assertEqual("GRAPNEL_CONSOLE_SEALING_KEY" in env, key == ("Deployment", "grapnel-manage"), key)

        env = manage(render(values=EVERYTHING))
        self.assertEqual(secret_of(env["GRAPNEL_CONSOLE_SEALING_KEY"]), ("grapnel-keys", "console"))
        self.assertEqual(secret_of(env["GRAPNEL_IDENTITY_PROXY_SECRET"]), ("grapnel-keys", "proxy"))
        self.assertEqual(env["GRAPNEL_IDENTITY_PROXIES"]["value"], "10.1.0.0/16")
        self.assertEqual(env["GRAPNEL_IDENTITY_USER_HEADER"]["value"], "x-forwarded-email")
        self.assertEqual(env["GRAPNEL_IDENTITY_GROUPS_HEADER"]["value"], "x-forwarded-groups")

    def test_there_need_not_be_a_console(self):
        objects = render("manage.console.enabled=false", "management.ingress.enabled=true")
        self.assertNotIn("console-sealing-key", objects["Secret", "grapnel-credentials"]["data"])
        paths = objects["Ingress", "grapnel-management"]["spec"]["rules"][0]["http"]["paths"]
        self.assertFalse([path for path in paths if "console" in path["path"]])
        env = variables(objects["Deployment", "grapnel-manage"]["spec"]["template"]["spec"]["containers"][0])
        self.assertNotIn("GRAPNEL_CONSOLE_SEALING_KEY", env)

    def test_an_identity_proxy_needs_a_secret_and_somebody_who_judges(self):
        proxies = "manage.console.identityProxies={10.0.0.0/8}"
        with self.assertRaisesRegex(Refused, "identityProxySecret"):
            render(proxies)
        with self.assertRaisesRegex(Refused, "manage.kubernetesAccess"):
            render(proxies, "manage.console.identityProxySecret.existingSecret=a", "manage.kubernetesAccess=false")

    def test_there_need_not_be_a_management_key(self):
        objects = render("credentials.managementKey.enabled=false")
        self.assertNotIn("management-key", objects["Secret", "grapnel-credentials"]["data"])
        env = variables(objects["Deployment", "grapnel-manage"]["spec"]["template"]["spec"]["containers"][0])
        self.assertNotIn("MANAGEMENT_API_KEY", env)
        self.assertEqual(env["GRAPNEL_KUBERNETES_ACCESS"]["value"], "true")
        with self.assertRaisesRegex(Refused, "nobody could use the management routes"):
            render("credentials.managementKey.enabled=false", "manage.kubernetesAccess=false")

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
        cluster = {key for key in objects if key[0].startswith("ClusterRole")}
        self.assertEqual(cluster, {("ClusterRole", "platform-grapnel-manage"), ("ClusterRoleBinding", "platform-grapnel-manage")})
        roles = {name for kind, name in objects if kind == "Role"}
        self.assertEqual(roles, {"grapnel-controller", "platform-grapnel-controller@shop", "platform-grapnel-controller@billing"})

    def test_only_the_controller_and_the_management_pods_have_a_token(self):
        def with_token(*sets):
            return {key for key, spec in pod_specs(render(*sets)) if spec["automountServiceAccountToken"]}
        controller = {("Deployment", "grapnel-controller"), ("Job", "grapnel-uninstall")}
        self.assertEqual(with_token(), controller | {("Deployment", "grapnel-manage")})
        self.assertEqual(with_token("manage.kubernetesAccess=false"), controller)

    def test_management_pods_may_only_ask(self):
        objects = render()
        rules = objects["ClusterRole", "platform-grapnel-manage"]["rules"]
        granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
        self.assertEqual(granted, {("tokenreviews", "create"), ("subjectaccessreviews", "create")})
        bound = [key for key, document in objects.items() if key[0].endswith("RoleBinding")
                 and "grapnel-manage" in {subject["name"] for subject in document["subjects"]}]
        self.assertEqual(bound, [("ClusterRoleBinding", "platform-grapnel-manage")])
        self.assertNotIn(("ClusterRole", "platform-grapnel-manage"), render("manage.kubernetesAccess=false"))

    def test_payloads_and_replays_take_the_right_to_edit(self):
        objects = render()
        def granted(name):
            rules = objects["ClusterRole", f"platform-grapnel-{name}"]["rules"]
            return {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
        view, edit, admin = granted("view"), granted("edit"), granted("admin")
        self.assertLessEqual({("integrations/events", "list"), ("integrations/deliveries", "list"), ("integrations/audit", "list"),
                              ("integrations/replays", "get")}, view)
        self.assertFalse({resource for resource, verb in view if verb not in ("get", "list", "watch")})
        self.assertNotIn("integrations/payloads", {resource for resource, _ in view})
        self.assertLessEqual({("integrations/payloads", "get"), ("integrations/replays", "create")}, edit)
        self.assertEqual(admin, {("integrations/events", "delete")})

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

    def test_replays_are_seen_by_who_may_view_and_changed_by_who_may_edit(self):
        objects = render()
        def granted(name):
            rules = objects["ClusterRole", f"platform-grapnel-{name}"]["rules"]
            return {verb for rule in rules if "replays" in rule["resources"] for verb in rule["verbs"]}
        self.assertEqual(granted("view"), {"get", "list", "watch"})
        self.assertEqual(granted("edit"), {"create", "update", "patch", "delete", "deletecollection"})
        labels = objects["ClusterRole", "platform-grapnel-edit"]["metadata"]["labels"]
        self.assertEqual(labels["rbac.authorization.k8s.io/aggregate-to-admin"], "true")
        self.assertEqual(granted("controller"), {"get", "list", "watch", "patch", "delete"})

    def test_users_may_not_write_status(self):
        for key, document in render().items():
            if "aggregate-to" in yaml.safe_dump(document["metadata"].get("labels", {})):
                for rule in document["rules"]:
                    if {"integrations/status", "replays/status"} & set(rule["resources"]):
                        self.assertLessEqual(set(rule["verbs"]), {"get", "list", "watch"}, key)


class Traffic(unittest.TestCase):
    def test_webhooks_and_management_are_separate(self):
        objects = render(values=EVERYTHING)
        def paths(name):
            return [path["path"] for path in objects["Ingress", name]["spec"]["rules"][0]["http"]["paths"]]
        self.assertEqual(paths("grapnel-webhooks"), ["/api/v1/webhooks"])
        self.assertFalse([path for path in paths("grapnel-management") if "/api/v1/webhooks".startswith(path)])

    def test_management_routes_lead_to_the_management_pods(self):
        objects = render(values=EVERYTHING)
        for side, service in (("webhooks", "grapnel-api"), ("management", "grapnel-manage")):
            paths = objects["Ingress", f"grapnel-{side}"]["spec"]["rules"][0]["http"]["paths"]
            self.assertEqual({path["backend"]["service"]["name"] for path in paths}, {service})
            (rule,) = objects["HTTPRoute", f"grapnel-{side}"]["spec"]["rules"]
            self.assertEqual([backend["name"] for backend in rule["backendRefs"]], [service])

    def test_the_management_paths_are_those_of_the_api(self):
        sources = "".join(path.read_text() for path in (ROOT / "runtime/src/management").rglob("*.rs"))
        served = {"/api/v1/" + name for name in re.findall(r'path = "/(?:api/v1/)?([a-z-]+)', sources)} - {"/api/v1/internal", "/api/v1/webhooks"}
        self.assertIn("/api/v1/events", served)
        objects = render(values=EVERYTHING)
        routed = {path["path"] for path in objects["Ingress", "grapnel-management"]["spec"]["rules"][0]["http"]["paths"]}
        self.assertLessEqual(served, routed)

    def test_the_console_is_behind_its_prefix(self):
        for sets, values, path in ((("management.ingress.enabled=true",), None, "/console"), ((), EVERYTHING, "/grapnel/console")):
            objects = render(*sets, values=values)
            paths = objects["Ingress", "grapnel-management"]["spec"]["rules"][0]["http"]["paths"]
            self.assertIn(path, [routed["path"] for routed in paths])

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

    def test_redis_and_further_servers_are_no_destinations(self):
        def denied(*sets):
            container = render(*sets)["Deployment", "grapnel-api"]["spec"]["template"]["spec"]["containers"][0]
            return variables(container).get("GRAPNEL_DENIED_DESTINATIONS", {}).get("value")

        self.assertEqual(denied(), "grapnel-redis:6379")
        self.assertEqual(denied("deniedDestinations={redis.data:6379}"), "redis.data:6379,grapnel-redis:6379")
        self.assertIsNone(denied("external.redis.url=redis://redis.data:6379/0"))

    def test_api_and_workers_have_one_way_out(self):
        for sets, expected in (
            ((), {}),
            (("egress.noProxy={example.com}",), {}),
            (("egress.proxy.url=http://proxy:3128", "egress.noProxy={example.com,192.0.2.0/24}"),
             {"PROXY": "http://proxy:3128", "NO": "example.com,192.0.2.0/24", "RESOLVES": "false"}),
            (("egress.proxy.existingSecret=proxy", "egress.proxyResolves=true", "egress.ca.secret=ca"),
             {"PROXY": ("proxy", "url"), "RESOLVES": "true", "CA": "/etc/grapnel/egress-ca/ca.crt"}),
        ):
            with self.subTest(sets):
                objects = render(*sets)
                api = objects["Deployment", "grapnel-api"]["spec"]["template"]["spec"]
                worker = yaml.safe_load(objects["ConfigMap", "grapnel-workers"]["data"]["pod.yaml"])
                names = {"PROXY": "GRAPNEL_EGRESS_PROXY", "NO": "GRAPNEL_NO_PROXY",
                         "RESOLVES": "GRAPNEL_EGRESS_PROXY_RESOLVES", "CA": "GRAPNEL_EGRESS_CA_FILE"}
                for container in (api["containers"][0], worker):
                    found = variables(container)
                    for short, name in names.items():
                        variable = found.get(name)
                        value = variable and (variable.get("value") or secret_of(variable))
                        self.assertEqual(value, expected.get(short), name)
                mount = [{"name": "egress-ca", "mountPath": "/etc/grapnel/egress-ca", "readOnly": True}]
                volume = [{"name": "egress-ca", "secret": {"secretName": "ca"}}]
                for pod, container in ((api, api["containers"][0]), (worker, worker)):
                    self.assertEqual(pod.get("volumes", []), volume if "CA" in expected else [])
                    self.assertEqual(container.get("volumeMounts", []), mount if "CA" in expected else [])
        for sets in (("egress.proxy.url=http://a", "egress.proxy.existingSecret=b"),
                     ("egress.ca.secret=a", "egress.ca.configMap=b")):
            with self.assertRaisesRegex(Refused, "not both"):
                render(*sets)

    def test_credentials_of_the_proxy_are_only_in_a_secret(self):
        with self.assertRaisesRegex(Refused, "egress"):
            render("egress.proxy.url=http://user:word@proxy:3128")

    def test_the_proxy_is_reached_by_the_api_and_workers(self):
        def rules(*sets):
            objects = render(*sets)
            policies = [objects["NetworkPolicy", f"grapnel-{role}"] for role in ("api", "worker")]
            return [rule for policy in policies for rule in policy["spec"]["egress"]
                    if {"protocol": "TCP", "port": 8443} in rule.get("ports", [])]
        self.assertEqual(rules("egress.proxy.port=8443"), [])
        to_proxy = ("egress.proxy.url=http://proxy:8443", "egress.proxy.port=8443")
        ports = [{"protocol": "TCP", "port": 8443}]
        self.assertEqual(rules(*to_proxy), [{"ports": ports}] * 2)
        to = [{"ipBlock": {"cidr": "10.1.2.3/32"}}]
        self.assertEqual(rules(*to_proxy, "networkPolicy.proxyTo[0].ipBlock.cidr=10.1.2.3/32"), [{"ports": ports, "to": to}] * 2)

    def test_workers_reach_no_private_network_unless_allowed(self):
        def blocks(*sets):
            policy = render(*sets)["NetworkPolicy", "grapnel-worker"]
            return [peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "ipBlock" in peer]
        self.assertIn("10.0.0.0/8", blocks()[0]["except"])
        self.assertEqual([block["cidr"] for block in blocks()], ["0.0.0.0/0", "::/0"])
        self.assertIn({"cidr": "10.0.0.0/8"}, blocks("allowedDestinationCidrs={10.0.0.0/8}"))

    def test_workers_reach_the_pods_of_services_and_none_of_the_platform(self):
        def pods(*sets):
            policy = render(*sets)["NetworkPolicy", "grapnel-worker"]
            return [peer for rule in policy["spec"]["egress"] for peer in rule.get("to", []) if "namespaceSelector" in peer]
        [peer] = pods()
        self.assertEqual(peer["namespaceSelector"]["matchExpressions"],
                         [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["platform"]}])
        self.assertEqual(peer["podSelector"]["matchExpressions"],
                         [{"key": "app.kubernetes.io/name", "operator": "NotIn", "values": ["grapnel"]}])
        self.assertEqual(pods("networkPolicy.servicePods=false"), [])

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


class Workers(unittest.TestCase):
    EXTERNAL = "external.postgres.url=postgres://grapnel@db/grapnel"

    def most(self, *sets):
        controller = render(*sets)[("Deployment", "grapnel-controller")]
        environment = variables(controller["spec"]["template"]["spec"]["containers"][0])
        return environment["GRAPNEL_MAX_WORKERS_PER_NAMESPACE"]["value"]

    def test_the_bundled_postgres_has_connections_for_them(self):
        self.assertEqual(self.most(), "10")
        self.assertEqual(self.most("api.replicas=4"), "8")
        self.assertEqual(self.most("api.replicas=100"), "1")
        self.assertEqual(self.most("controller.maxWorkersPerNamespace=5"), "5")
        with self.assertRaisesRegex(Refused, "at most 10 with the bundled PostgreSQL"):
            render("controller.maxWorkersPerNamespace=11")

    def test_an_external_postgres_bounds_nothing(self):
        self.assertEqual(self.most(self.EXTERNAL), "100")
        self.assertEqual(self.most(self.EXTERNAL, "controller.maxWorkersPerNamespace=1000"), "1000")


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
