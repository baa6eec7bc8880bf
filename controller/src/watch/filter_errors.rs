//! Polls the database for filters that could not be evaluated: the api records them.
//!
//! Every few seconds one statement asks for all Integrations at once. An object is triggered only if its problems changed.

use std::sync::Arc;

use futures::FutureExt;
use grapnel_crds::Integration;
use grapnel_crds::conditions::{self, FALSE, condition};
use grapnel_store::filter_errors;
use kube::Resource;
use tokio_util::sync::CancellationToken;

use super::polls;
use crate::context::Context;
use crate::error::CallError;
use crate::filter_problems::{message, problems};
use crate::object::{integration_id, object_ref};

/// Runs until stopped.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    polls::run(ctx, stop, "the errors of filters", |ctx| poll(ctx).boxed()).await;
}

/// Remembers the problems, and triggers the objects whose problems changed.
async fn poll(ctx: &Context) -> Result<(), CallError> {
    let errors = ctx.database(filter_errors::current(&ctx.db)).await?;
    for object in ctx.integrations.state() {
        let Ok(integration) = &object.0 else { continue };
        if object.meta().deletion_timestamp.is_some() {
            continue;
        }
        let has_changed = ctx.memory.with(integration_id(integration), |memory| {
            let known = memory.filter_problems.as_deref().unwrap_or_default();
            let found = problems(integration_id(integration), &errors, known);
            let has_changed = match &memory.filter_problems {
                Some(known) => *known != found,
                None => message(&found) != reported_message(integration),
            };
            memory.filter_problems = Some(found);
            has_changed
        });
        if has_changed {
            ctx.trigger(object_ref(&object));
        }
    }
    Ok(())
}

/// Returns the message that an earlier process reported.
fn reported_message(integration: &Integration) -> Option<String> {
    let reported = &integration.status.as_ref()?.conditions;
    let reported = conditions::find(reported, condition::FILTERS_HEALTHY)?;
    (reported.status == FALSE).then(|| reported.message.clone())
}
