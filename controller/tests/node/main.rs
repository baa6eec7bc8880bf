//! The chart on a real node, seen from outside: installed, used, upgraded, disturbed and removed.
//!
//! `scripts/check-node` brings up the node, the datastores and the images, runs this program and takes everything down
//! again. The environment says where things are: [`harness::Node::from_environment`] lists the variables.
//!
//! The cases share one cluster, and each builds on the ones before it. This is why they run in one fixed order, one at a
//! time, and stop at the first failure:
//!
//! ```text
//! cargo test --test node -- --list         # the names of the cases, in order
//! cargo test --test node -- webhook        # this case alone, after the installation
//! ```

mod harness;

mod installation;
mod contract;
mod service;
mod scaling;
mod upgrade;
mod tenant;
mod rights;
mod uninstall;
mod bundled;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use self::harness::{Node, output};

/// A case. It returns a remark for the line that reports its success, and panics when it fails.
struct Case {
    name: &'static str,
    run: for<'a> fn(&'a Node) -> LocalBoxFuture<'a, String>,
}

/// In the order in which they run. Each leaves the installation as it found it, except the last two.
const CASES: &[Case] = &[
    Case { name: "install", run: |node| installation::install(node).boxed_local() },
    Case { name: "test", run: |node| installation::helm_test(node).boxed_local() },
    Case { name: "examples", run: |node| contract::examples(node).boxed_local() },
    Case { name: "webhook", run: |node| contract::webhook(node).boxed_local() },
    Case { name: "public-port", run: |node| contract::public_port(node).boxed_local() },
    Case { name: "replay", run: |node| contract::replay(node).boxed_local() },
    Case { name: "service", run: |node| service::service(node).boxed_local() },
    Case { name: "scaling", run: |node| scaling::scaling(node).boxed_local() },
    Case { name: "upgrade", run: |node| upgrade::upgrade(node).boxed_local() },
    Case { name: "unchanged", run: |node| installation::unchanged(node).boxed_local() },
    Case { name: "tenant", run: |node| tenant::tenant(node).boxed_local() },
    Case { name: "rights", run: |node| rights::rights(node).boxed_local() },
    Case { name: "uninstall", run: |node| uninstall::uninstall(node).boxed_local() },
    Case { name: "bundled", run: |node| bundled::bundled(node).boxed_local() },
];

/// The exit code for invalid arguments, as `EXIT_USAGE` of the scripts.
const EXIT_USAGE: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["--list"] {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = arguments.iter().find(|name| CASES.iter().all(|case| case.name != **name)) {
        eprintln!("unknown case '{unknown}' (see --list)");
        return ExitCode::from(EXIT_USAGE);
    }
    let node = Node::from_environment().await;
    for case in CASES.iter().filter(|case| is_selected(case, &arguments)) {
        if !passes(case, &node).await {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Every case needs the installation; without names, all cases are selected.
fn is_selected(case: &Case, names: &[String]) -> bool {
    names.is_empty() || case.name == CASES[0].name || names.iter().any(|name| name == case.name)
}

/// Runs a case and prints its line.
async fn passes(case: &Case, node: &Node) -> bool {
    let started = Instant::now();
    let result = AssertUnwindSafe((case.run)(node)).catch_unwind().await;
    match &result {
        Ok(remark) => output::passed(case.name, started.elapsed(), remark),
        Err(_) => output::failed(case.name, started.elapsed()),
    }
    result.is_ok()
}
