//! Replays: copies what an object says down to the job in PostgreSQL, and what the job has done up to the object.
//!
//! An object makes one job, which is found by the object's uid, whoever is killed between two steps. The job is fed by the api; this
//! only creates it, asks it to run, pause or end when the object changes its mind, and reports it. `state` and the rate act when
//! they change, so what others ask of the job in the meantime stays.
//!
//! A deleted object cancels its job. Should that not be possible soon, the object goes all the same, and the sweep cancels the job
//! later: no namespace waits for PostgreSQL.

use std::sync::Arc;

use futures::StreamExt;
use grapnel_crds::Replay;
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Controller;
use kube::runtime::reflector::{self, ObjectRef, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::Context;
use crate::crd_wait::wait_for_replays;
use crate::watch::{controller_config, watch_objects};

mod memory;
mod job;
mod status;
mod events;
mod cleanup;
mod pass;
mod progress;
mod sweep;

use self::memory::Memory;

/// Passes at a time. Each takes a statement or two.
const CONCURRENCY: u16 = 4;

/// Triggers that may wait; the sweep finds those that do not fit.
const TRIGGERS: usize = 1024;

/// A Replay as it is watched. An object that cannot be decoded does not hide the others.
type WatchedReplay = DeserializeGuard<Replay>;

/// The environment of a pass over a Replay.
struct ReplayContext {
    shared: Arc<Context>,
    objects: Store<WatchedReplay>,
    triggers: mpsc::Sender<ObjectRef<WatchedReplay>>,
    memory: Memory,
}

impl ReplayContext {
    /// Requests a pass over an object. When the channel is full, the sweep finds the object later.
    fn trigger(&self, object: &WatchedReplay) {
        if self.triggers.try_send(ObjectRef::from_obj(object)).is_err() {
            tracing::debug!("dropped a trigger; the sweep makes up for it");
        }
    }
}

/// Runs until stopped, and then finishes the passes in progress. Waits for the custom resource first.
pub async fn run(ctx: Arc<Context>, stop: CancellationToken) {
    let installed = wait_for_replays(&ctx.client, &ctx.settings.watched);
    if stop.run_until_cancelled(installed).await.is_none() {
        return;
    }
    let (objects, writer) = reflector::store();
    let (triggers, mut triggered) = mpsc::channel(TRIGGERS);
    let watched = watch_objects::<Replay>(&ctx, "replays", writer);
    let ctx = Arc::new(ReplayContext { shared: ctx, objects, triggers, memory: Memory::default() });
    let triggered = futures::stream::poll_fn(move |task| triggered.poll_recv(task));
    let passes = Controller::for_stream(watched, ctx.objects.clone())
        .with_config(controller_config(CONCURRENCY))
        .reconcile_on(triggered)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(pass::reconcile, pass::after_error, Arc::clone(&ctx))
        .for_each(|outcome| {
            // The error of a failed pass is logged by `after_error`; the rest are objects that no longer exist.
            if let Err(error) = outcome {
                tracing::debug!(%error, "reconciling ended with an error");
            }
            std::future::ready(())
        });
    tokio::join!(passes, progress::run(Arc::clone(&ctx), stop.clone()), sweep::run(ctx, stop));
}

/// Returns the uid of an object, which is that of its job. Every object of an API server has one.
fn uid_of(object: &WatchedReplay) -> Option<Uuid> {
    object.meta().uid.as_deref().and_then(|uid| uid.parse().ok())
}
