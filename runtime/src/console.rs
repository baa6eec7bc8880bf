//! The console: pages about everything that the management API knows, for people with a browser, under `/console/`.
//!
//! # How a page is made
//!
//! - A page is a file in `pages/`, named after what it shows: a function `page(visitor, …) -> Outcome`, a struct with `#[derive(Template)]`
//!   and a template of the same name in `templates/console/`, which extends `layout.html`. Its route is a line in [`routes`].
//! - [`Visitor`] is who looks. It is there for every page but the log-in; no page decides who may see it. Data come from
//!   `visitor.operator`, which has the functions of the management API, with its structs, queries and errors, and withholds what the API
//!   would withhold. There is no SQL here, and no second model. `?` on an `ApiError` shows the page of that error.
//! - What one may not do is not offered: ask `visitor.rights` (anywhere at all) or `operator.may_…` (of one Integration).
//! - Every state is a URL: filters are the query of the API, unchanged (`RawQuery`). Every change is a form with POST, which carries
//!   `{{ parts::csrf(shell) }}` and is answered by `visitor.go(path)`, a redirect. The token is checked before the handler runs, which
//!   takes [`forms::Fields`].
//! - A live part is the block `live`, a `<div id="live" {{ parts::live(shell) }}>` that htmx asks for again every 2 s at the page's own
//!   URL. `visitor.answer(&page, &page.as_live())` sends the block or the page. It must not be expensive: every open tab asks for it,
//!   though what several tabs of a visitor show is made once (`live_parts`).
//! - Everything works without JavaScript. What needs it has the class `js-only`.
//! - Links and forms begin with `{{ shell.root }}`, which has the prefix of the installation.
//! - Text that anybody else wrote (payloads, types, names of headers, errors of receivers) is shown by `show::text` or `show::lines`: bounded,
//!   and without characters that could move what is around it. Escaping is the template's; `|safe` is used nowhere, and a type that is HTML
//!   (`svg`) is made of numbers and escaped text only.
//! - `parts.html` has badges of states, times, numbers, empty states and pagers. Styles are classes of `console.css`: the content security policy
//!   forbids style attributes, so a width is an SVG or a `<progress>`.
//!
//! # What always holds
//!
//! No credential is in a page, a URL or a log. A session is a row; the credential in it is sealed, and judged again for each request
//! as the API judges it, so whoever loses it loses the session. Nothing of an answer is cached but the assets, whose names have their hash.

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{any, get, post};

use crate::management::{ManagementState, OverviewCache};

mod show;
mod svg;
mod condition_docs;
mod readiness;
pub(crate) mod settings;
mod browser;
mod csrf;
mod assets;
mod headers;
mod shell;
mod identity_proxy;
mod sessions;
mod visitor;
mod forms;
mod answer;
mod live_parts;
mod log_in;
mod pages;

pub(crate) use sessions::drop_expired_sessions;
pub(crate) use settings::ConsoleSettings;

/// What the pages share.
pub(crate) struct Console {
    management: ManagementState,
    settings: ConsoleSettings,
    overview: OverviewCache,
    live_parts: live_parts::LiveParts,
    /// What links begin with: the prefix of the installation and `/console`.
    root: Arc<str>,
}

type Shared = Arc<Console>;

/// What a page's function returns.
type Outcome = Result<axum::response::Response, answer::Refused>;

/// Returns the console, for the root of a port. With a prefix, it is there with and without it: proxies differ in whether they take it off.
pub(crate) fn router(management: ManagementState, settings: ConsoleSettings) -> Router {
    let root: Arc<str> = format!("{}/console", settings.prefix).into();
    let console = Arc::new(Console {
        management,
        root: Arc::clone(&root),
        settings,
        overview: OverviewCache::default(),
        live_parts: live_parts::LiveParts::default(),
    });
    let mut router = at("/console", &console);
    if &*root != "/console" {
        router = router.merge(at(&root, &console));
    }
    let home = Redirect::to(&format!("{root}/"));
    router.route("/", get(|| async move { home })).layer(from_fn(headers::secure))
}

fn at(base: &str, console: &Shared) -> Router {
    let path = |rest: &str| format!("{base}{rest}");
    let pages = routes(path)
        .layer(from_fn_with_state(Arc::clone(console), forms::check))
        .layer(from_fn_with_state(Arc::clone(console), visitor::identify));
    let open = Router::new()
        .route(base, get(to_root))
        .route(&path("/log-in"), get(log_in::page).post(log_in::log_in))
        .route(&path("/assets/{name}"), get(assets::asset));
    pages.merge(open).with_state(Arc::clone(console))
}

/// The pages, all of which take a visitor.
fn routes(path: impl Fn(&str) -> String) -> Router<Shared> {
    Router::new()
        .route(&path("/"), get(pages::overview::page))
        .route(&path("/integrations/{id}"), get(pages::integration::page))
        .route(&path("/events"), get(pages::events::page))
        .route(&path("/events/replay"), post(pages::replay_chosen::replay))
        .route(&path("/events/{id}"), get(pages::event::page))
        .route(&path("/events/{id}/payload"), get(pages::event::to_page).post(pages::event::show_payload))
        .route(&path("/events/{id}/replay"), get(pages::event::to_page).post(pages::event::replay))
        .route(&path("/events/{id}/erase"), get(pages::event::confirm_erasure).post(pages::event::erase))
        .route(&path("/deliveries"), get(pages::deliveries::page))
        .route(&path("/rejections"), get(pages::rejections::page))
        .route(&path("/audit"), get(pages::audit::page))
        .route(&path("/tools"), get(pages::tools::page))
        .route(&path("/tools/verify"), get(pages::tools::verify::page).post(pages::tools::verify::verify))
        .route(&path("/tools/filter"), get(pages::tools::filter::page))
        .route(
            &path("/tools/test-event"),
            get(pages::tools::test_event::page).post(pages::tools::test_event::send),
        )
        .route(&path("/integrations/{id}/charts"), get(pages::integration::charts))
        .route(&path("/replays"), get(pages::replays::page))
        .route(&path("/replays/requests"), get(pages::replay_requests::page))
        .route(&path("/replays/new"), get(pages::new_replay::page).post(pages::new_replay::start))
        .route(&path("/replays/{id}"), get(pages::replay::page))
        .route(&path("/replays/{id}/{change}"), get(pages::replay::to_page).post(pages::replay::change))
        .route(&path("/log-out"), post(log_in::log_out))
        .route(&path("/{*rest}"), any(answer::nothing_here))
}

async fn to_root(State(console): State<Shared>, OriginalUri(_): OriginalUri) -> impl IntoResponse {
    Redirect::to(&format!("{}/", console.root))
}
