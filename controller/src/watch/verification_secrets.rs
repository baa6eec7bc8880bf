//! What becomes of verification secrets while no object changes: captured ones wait to be put into their Secrets, and
//! previous ones fall out of use.
//!
//! Every few seconds two statements ask for all Integrations at once. What they found is remembered, and an object is
//! reconciled when that is news, so nothing is read or written for one while nothing happens.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use grapnel::store::{captured as captures, secret_uses};
use grapnel_crds::Integration;
use grapnel_crds::conditions::{self, condition};
use jiff::Timestamp;
use kube::Resource;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::{CallError, Context, SecretsMemory, Watched};
use crate::reconcile::object_ref;
use crate::watch;

pub mod captured;
pub mod unused;

/// A provider that waits for its secret to be used sends again within minutes; this is much less.
const EVERY: Duration = Duration::from_secs(10);

/// Runs until told to stop.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let looks = async {
        watch::filled(&ctx.integrations).await;
        loop {
            if ctx.lead.is_held()
                && let Err(error) = look(&ctx).await
            {
                tracing::warn!(error = %grapnel::telemetry::chain(&error), "verification secrets cannot be looked after");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    stop.run_until_cancelled(looks).await;
}

/// Remembers what there is to tell, and triggers the objects for which that is news.
async fn look(ctx: &Context) -> Result<(), CallError> {
    let objects = ctx.integrations.state();
    let present = |object: &&Arc<Watched>| object.meta().deletion_timestamp.is_none();
    let readable =
        objects.iter().filter(present).filter_map(|object| Some((object, object.0.as_ref().ok()?)));
    let readable: Vec<_> =
        readable.map(|(object, integration)| (integration.id(), object, integration)).collect();
    let ids: Vec<Uuid> = readable.iter().map(|(id, ..)| *id).collect();
    let listed: Vec<_> = readable.iter().flat_map(|(id, _, object)| unused::listed(*id, object)).collect();
    let waiting: HashSet<Uuid> = ctx.database(captures::waiting(&ctx.pool)).await?.into_iter().collect();
    let previous = ctx.database(secret_uses::follow_previous(&ctx.pool, &ids, &listed)).await?;
    let now = Timestamp::now();
    for (id, object, integration) in readable {
        let found = SecretsMemory {
            capture_waits: waiting.contains(&id),
            unused: unused::unused(id, integration, &previous, now),
        };
        let known = ctx.with_memory(id, |memory| memory.secrets.replace(found.clone()));
        if known.unwrap_or_else(|| told(integration)) != found {
            ctx.trigger(object_ref(object));
        }
    }
    Ok(())
}

/// What an earlier process told: it is no news when it is still so.
fn told(integration: &Integration) -> SecretsMemory {
    let Some(status) = &integration.status else { return SecretsMemory::default() };
    SecretsMemory {
        capture_waits: conditions::find(&status.conditions, condition::CAPTURE_WAITING).is_some(),
        unused: status.verification.clone().unwrap_or_default().unused_previous_secrets,
    }
}
