//! An authenticated user of the cluster.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::UserInfo;

/// The longest name that is accepted, in bytes. Names are written into the audit trail.
const MAX_NAME_BYTES: usize = 1024;

/// Who a token belongs to, as the API server says. All of it goes into the questions about rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Returns the user; `None` when it has no name, or one that cannot be recorded.
    pub(crate) fn of(info: UserInfo) -> Option<Self> {
        let name = info.username.filter(|name| !name.is_empty())?;
        if name.len() > MAX_NAME_BYTES || name.contains('\0') {
            return None;
        }
        Some(Self {
            name,
            uid: info.uid.filter(|uid| !uid.is_empty()),
            groups: info.groups.unwrap_or_default(),
            extra: info.extra.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_recorded_are_nobodys() {
        let named =
            |name: &str| User::of(UserInfo { username: Some(name.to_owned()), ..UserInfo::default() });
        assert_eq!(named("jane").expect("a user").name, "jane");
        assert_eq!(named(""), None);
        assert_eq!(named("ja\0ne"), None);
        assert_eq!(named(&"x".repeat(MAX_NAME_BYTES + 1)), None);
        assert_eq!(User::of(UserInfo::default()), None);
    }
}
