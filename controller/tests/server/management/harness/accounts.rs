//! Accounts with roles, and whether the API server honors them.

use grapnel_testing::{unique_name, wait_until};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::api::{Api, DeleteParams, PostParams};

use super::{ADMIN_RULES, EDIT_RULES, LIST_RULES, Management, VIEW_RULES};
use crate::harness::access;

/// Rules in one namespace, or in all.
#[derive(Debug, Clone)]
pub(crate) struct Role {
    pub(crate) name: String,
    namespace: Option<String>,
    rules: Vec<PolicyRule>,
}

impl Role {
    pub(crate) fn in_namespace(name: &str, namespace: &str, rules: &str) -> Self {
        Self { name: name.to_owned(), namespace: Some(namespace.to_owned()), rules: access::rules_of(rules) }
    }

    fn everywhere(name: &str, rules: &str) -> Self {
        Self { name: name.to_owned(), namespace: None, rules: access::rules_of(rules) }
    }

    /// Those of the chart, and those of docs/access.md.
    pub(crate) fn all(management: &Management) -> Vec<Self> {
        let [first, second, ..] = management.tenants.as_slice() else { panic!("two namespaces") };
        let (view, edit) = ([LIST_RULES, VIEW_RULES].concat(), [LIST_RULES, VIEW_RULES, EDIT_RULES].concat());
        let admin = [edit.as_str(), ADMIN_RULES].concat();
        vec![
            Self::in_namespace("view", &first.namespace, &view),
            Self::in_namespace("edit", &second.namespace, &edit),
            Self::in_namespace("admin", &first.namespace, &admin),
            Self::everywhere("view-all", &view),
            Self::everywhere(
                "on-call",
                "- {apiGroups: [grapnel.dev], resources: [integrations/events, integrations/deliveries], verbs: [get, list]}\n\
                 - {apiGroups: [grapnel.dev], resources: [integrations/replays], verbs: [get, list, create]}\n",
            ),
            Self::everywhere(
                "auditor",
                "- {apiGroups: [grapnel.dev], resources: [integrations/audit], verbs: [get, list]}\n",
            ),
            Self::in_namespace(
                "payloads-only",
                &first.namespace,
                "- {apiGroups: [grapnel.dev], resources: [integrations/payloads], verbs: [get]}\n",
            ),
            Self::in_namespace("nothing", &first.namespace, "[]"),
        ]
    }

    /// Returns whether the rules allow it, for whatever name.
    pub(crate) fn may(&self, resource: &str, verb: &str, namespace: &str) -> bool {
        let is_here = self.namespace.as_deref().is_none_or(|own| own == namespace);
        is_here
            && self.rules.iter().any(|rule| {
                rule.verbs.iter().any(|allowed| allowed == verb)
                    && rule.resources.iter().flatten().any(|allowed| allowed == resource)
            })
    }
}

impl Management {
    /// Waits until the API server lets the management account ask.
    pub(super) async fn wait_until_asking_is_allowed(&self) {
        for (group, resource) in
            [("authentication.k8s.io", "tokenreviews"), ("authorization.k8s.io", "subjectaccessreviews")]
        {
            let attributes = ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some("create".to_owned()),
                ..ResourceAttributes::default()
            };
            self.wait_until_allowed(&self.manage_user(), &[], attributes).await;
        }
    }

    async fn wait_until_allowed(&self, user: &str, groups: &[String], attributes: ResourceAttributes) {
        let reviews: Api<SubjectAccessReview> = Api::all(self.installation.client.clone());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.to_owned()),
                groups: Some(groups.to_vec()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        wait_until("the rights to be granted", async || {
            let answer = reviews.create(&PostParams::default(), &review).await.expect("a review");
            answer.status.is_some_and(|status| status.allowed)
        })
        .await;
    }

    /// Returns the user name of a role's account.
    pub(crate) fn user(&self, role: &Role) -> String {
        format!("system:serviceaccount:{}:{}", self.installation.platform, role.name)
    }

    /// Creates an account with a role, and returns its token. The API server honors the role when this returns.
    pub(crate) async fn account(&self, role: &Role) -> String {
        self.account_for(role, "").await
    }

    /// Does the same for rules about one name.
    pub(crate) async fn account_for(&self, role: &Role, name: &str) -> String {
        let (client, platform) = (&self.installation.client, &self.installation.platform);
        access::create_account(client, platform, &role.name).await;
        if let Some(rule) = role.rules.last() {
            access::bind_account(client, platform, &role.name, role.namespace.as_deref(), &role.rules).await;
            let resource = rule.resources.iter().flatten().next().expect("a resource");
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let attributes = ResourceAttributes {
                group: Some("grapnel.dev".to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()),
                verb: rule.verbs.first().cloned(),
                namespace: role.namespace.clone(),
                name: Some(name.to_owned()),
                ..ResourceAttributes::default()
            };
            self.wait_until_allowed(&self.user(role), &[], attributes).await;
        }
        self.token(role, Some("grapnel")).await
    }

    /// Removes an account. The API server refuses its token when this returns.
    pub(crate) async fn remove_account(&self, role: &Role, token: &str) {
        let client = &self.installation.client;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &self.installation.platform);
        accounts.delete(&role.name, &DeleteParams::default()).await.expect("an account");
        let reviews: Api<TokenReview> = Api::all(client.clone());
        // It keeps answers for some seconds, by the audiences that were asked for.
        for audiences in [None, Some(vec!["grapnel".to_owned()])] {
            let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences };
            let review = TokenReview { spec, ..TokenReview::default() };
            wait_until("the API server to refuse the token", async || {
                let answer = reviews.create(&PostParams::default(), &review).await.expect("a review");
                answer.status.is_none_or(|status| status.authenticated != Some(true))
            })
            .await;
        }
    }

    /// Gives a new group these rules in a namespace, and returns its name. The API server honors them when this returns.
    pub(crate) async fn bind_group(&self, namespace: &str, rules: &str) -> String {
        let group = unique_name("team");
        let rules = access::rules_of(rules);
        access::bind_group(&self.installation.client, &group, namespace, &rules).await;
        let attributes = ResourceAttributes {
            group: Some("grapnel.dev".to_owned()),
            resource: Some("integrations".to_owned()),
            verb: Some("list".to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        self.wait_until_allowed("somebody", std::slice::from_ref(&group), attributes).await;
        group
    }

    pub(crate) async fn token(&self, role: &Role, audience: Option<&str>) -> String {
        let (client, platform) = (&self.installation.client, &self.installation.platform);
        access::token_of(client, platform, &role.name, audience).await
    }
}
