//! Whether this member may do what it has to, asked before the first election instead of found out in it.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;
use tracing::debug;

use crate::rules::Rule;

/// A server that answers does so at once; one that does not must not keep a member from starting.
const PATIENCE: Duration = Duration::from_secs(3);

/// Those verbs of a rule that this member may not use. What the server does not answer counts as allowed: the
/// request itself will show.
/// `object`: the one that the rule is needed for, where there is only one.
pub(crate) async fn missing(
    client: &Client,
    namespace: &str,
    rule: &Rule,
    object: Option<&str>,
) -> Vec<&'static str> {
    let ask = async {
        let mut missing = Vec::new();
        // One after the other, over one connection.
        for verb in rule.verbs {
            if !is_allowed(client, namespace, rule, verb, object).await {
                missing.push(*verb);
            }
        }
        missing
    };
    timeout(PATIENCE, ask).await.unwrap_or_default()
}

async fn is_allowed(client: &Client, namespace: &str, rule: &Rule, verb: &str, object: Option<&str>) -> bool {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(rule.api_group.into()),
                namespace: Some(namespace.into()),
                resource: Some(rule.resource.into()),
                verb: Some(verb.into()),
                // What is created has no name yet.
                name: object.filter(|_| verb != "create").map(Into::into),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api = Api::<SelfSubjectAccessReview>::all(client.clone());
    match timeout(PATIENCE, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(answer)) => answer.status.is_none_or(|status| status.allowed),
        Ok(Err(error)) => {
            debug!("the API server does not say whether this member may {verb} {}: {error}", rule.resource);
            true
        }
        Err(_) => true,
    }
}
