//! The tools: what `grapnel verify` and `grapnel filter` do, and a test event, without a command line.

use askama::Template;
use uuid::Uuid;

use crate::console::Outcome;
use crate::console::shell::{Section, Shell};
use crate::console::visitor::Visitor;
use crate::http::envelope::{ApiError, ErrorCode};

pub(in crate::console) mod filter;
pub(in crate::console) mod test_event;
pub(in crate::console) mod verify;

#[derive(Template)]
#[template(path = "console/tools.html")]
struct ToolsPage {
    shell: Shell,
    may_see_payloads: bool,
    may_replay: bool,
}

/// Shows what tools there are.
pub(in crate::console) async fn page(visitor: Visitor) -> Outcome {
    let page = ToolsPage {
        shell: Shell::new(&visitor, Section::Tools),
        may_see_payloads: visitor.rights.payloads,
        may_replay: visitor.rights.replaying,
    };
    Ok(visitor.page(&page))
}

/// Reads the id of an Integration in a form or a query.
fn integration_id(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::invalid("integration", "must be one of the list"))
}

/// A field of a form that is wrong is shown beside the form; anything else is a page of its own.
pub(super) fn as_problem<T>(result: Result<T, ApiError>) -> Result<Result<T, String>, ApiError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if matches!(error.code(), ErrorCode::ValidationError | ErrorCode::Conflict) => {
            Ok(Err(error.message().to_owned()))
        }
        Err(error) => Err(error),
    }
}
