//! The two questions that the API server is asked, each with a deadline.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use thiserror::Error;
use tokio::time::timeout;

use crate::right::{Place, Right};
use crate::user::User;

/// The API group of the resources that rights are about.
const GROUP: &str = "grapnel.dev";
const VERSION: &str = "v1alpha1";

/// A review that takes longer is given up.
const DEADLINE: Duration = Duration::from_secs(2);

/// The API server did not decide: it cannot be reached, or it refuses to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the API server does not answer")]
pub struct Unavailable;

/// There is no usable configuration of a client.
#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("find the API server, by the account of the pod or by KUBECONFIG")]
    Find(#[source] Box<kube::config::InferConfigError>),
    #[error("create a client of the API server")]
    Client(#[source] Box<kube::Error>),
}

/// A client of the API server. Cheap to clone.
#[derive(Clone)]
pub struct ApiServer(Client);

impl ApiServer {
    /// Makes a client for the account of the pod, or for the user of KUBECONFIG. Nothing is sent yet.
    ///
    /// # Errors
    /// When there is neither, or one that cannot be used.
    pub async fn find() -> Result<Self, ConnectError> {
        let mut config = Config::infer().await.map_err(|error| ConnectError::Find(Box::new(error)))?;
        config.connect_timeout = Some(DEADLINE);
        config.read_timeout = Some(DEADLINE);
        config.write_timeout = Some(DEADLINE);
        Client::try_from(config).map(Self).map_err(|error| ConnectError::Client(Box::new(error)))
    }

    /// A client whose API server does not exist.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Self {
        // A port that nothing listens on.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        Self::at(address)
    }

    /// A client of what listens there.
    #[cfg(test)]
    fn at(address: std::net::SocketAddr) -> Self {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            // Another test was first.
        }
        let url = format!("http://{address}").parse().expect("a URL");
        Self(Client::try_from(Config::new(url)).expect("a client"))
    }

    /// Returns whom a token belongs to; `None`: nobody, or not for this audience. Without an audience, it must be for the API
    /// server itself.
    pub(crate) async fn review_token(
        &self,
        token: &str,
        audience: Option<&str>,
    ) -> Result<Option<User>, Unavailable> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: audience.map(|audience| vec![audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = ask(Api::all(self.0.clone()), &review).await?;
        let Some(status) = answer.status.filter(|status| status.authenticated == Some(true)) else {
            return Ok(None);
        };
        // An authenticator that knows no audiences names none: the token is one for the API server.
        let named = status.audiences.unwrap_or_default();
        let is_meant =
            audience.is_none_or(|asked| named.is_empty() || named.iter().any(|name| name == asked));
        Ok(status.user.filter(|_| is_meant).and_then(User::of))
    }

    /// Returns whether the user has the right.
    pub(crate) async fn review_access(
        &self,
        user: &User,
        right: Right,
        place: Place<'_>,
    ) -> Result<bool, Unavailable> {
        let (namespace, name) = match place {
            Place::Everywhere => (None, None),
            Place::Namespace(namespace) => (Some(namespace), None),
            Place::Object { namespace, name } => (Some(namespace), Some(name)),
        };
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: user.uid.clone(),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    version: Some(VERSION.to_owned()),
                    resource: Some(right.resource.to_owned()),
                    subresource: right.subresource.map(str::to_owned),
                    verb: Some(right.verb.to_owned()),
                    namespace: namespace.map(str::to_owned),
                    name: name.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            status: None,
        };
        let status: Option<SubjectAccessReviewStatus> = ask(Api::all(self.0.clone()), &review).await?.status;
        Ok(status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }
}

/// Creates a review, which answers it. A failure is logged here, once, and says nothing of what was asked.
async fn ask<R>(api: Api<R>, review: &R) -> Result<R, Unavailable>
where
    R: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let parameters = PostParams::default();
    let create = || api.create(&parameters, review);
    let answer = async {
        match create().await {
            // A connection that was kept may have been closed just then. A review changes nothing, so it can be asked for again.
            Err(error) if is_of_connection(&error) => create().await,
            answer => answer,
        }
    };
    let cause = match timeout(DEADLINE, answer).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(kube::Error::Api(status))) => format!("{} ({})", status.reason, status.code),
        Ok(Err(error)) if is_of_connection(&error) => "it cannot be reached".to_owned(),
        Ok(Err(_)) => "it gave no readable answer".to_owned(),
        Err(_elapsed) => "no answer in time".to_owned(),
    };
    tracing::warn!(cause, "the API server did not answer a review");
    Err(Unavailable)
}

fn is_of_connection(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Reads a request; `None` when there is none.
    fn read_request(reader: &mut BufReader<TcpStream>) -> Option<()> {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()
    }

    /// Answers the first request of each connection, and closes the connection at the second.
    fn answer_once_each(listener: &TcpListener) {
        const USER: &str = r#"{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","metadata":{},"spec":{},"status":{"authenticated":true,"user":{"username":"vera"}}}"#;
        for connection in listener.incoming() {
            let mut connection = connection.expect("a connection");
            let mut reader = BufReader::new(connection.try_clone().expect("a connection"));
            if read_request(&mut reader).is_some() {
                let length = USER.len();
                let head = format!(
                    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
                );
                connection.write_all(format!("{head}{USER}").as_bytes()).expect("an answer");
                read_request(&mut reader);
            }
        }
    }

    #[tokio::test]
    async fn a_kept_connection_that_is_closed_is_no_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let api_server = ApiServer::at(listener.local_addr().expect("an address"));
        std::thread::spawn(move || answer_once_each(&listener));
        for _ in 0..3 {
            let user = api_server.review_token("token", None).await.expect("an answer");
            assert_eq!(user.expect("a user").name, "vera");
        }
    }
}
