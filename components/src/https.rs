//! `https:host/path`: as [`http:`](crate::http), over TLS.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `http_method` | GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS |  | the method; unset: the header `http.method`, else GET where there is a query or no body, else POST |
//! | `query` | text |  | the query of the URL, with `&` written as `%26`; the header `http.query` goes before it |
//! | `throw_exception_on_failure` | boolean | `true` | whether a status outside of the range is a failure |
//! | `ok_status_code_range` | text | `200-299` | which statuses are none: numbers and ranges, separated by commas |
//! | `follow_redirects` | boolean | `false` | whether redirects are followed, at most ten |
//! | `connect_timeout` | duration | `10s` | how long connecting may take |
//! | `response_timeout` | duration | `30s` | how long everything may take, from connecting to the last byte of the response |
//! | `max_response_size` | integer |  | how many bytes the body of a response may have; unset: as many as are spooled, `body.max_spooled_bytes` |
//! | `user_agent` | text |  | the header `user-agent`; `bactrian/VERSION` where unset |
//! | `auth_username` | text |  | the name for basic authentication |
//! | `auth_password` | secret |  | the password for basic authentication |
//! | `auth_bearer_token` | secret |  | the token for bearer authentication |
//! | `skip_request_headers` | boolean | `false` | whether the headers of the exchange are kept out of the request |
//! | `skip_response_headers` | boolean | `false` | whether the headers of the response are kept out of the exchange |
//!
//! Everything that is said of [`http:`](crate::http) holds here too. The certificate of the server must be
//! signed by one of the CA certificates of the system; the environment variables `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name others.

use router_core::component::{BuildContext, Component, Endpoint};
use router_core::error::ConfigErrors;
use router_core::options::{ComponentDescription, PathKind, path};
use router_core::uri::EndpointUri;

use crate::http::{Clients, HttpComponent, OPTIONS, endpoint};

/// The component.
#[derive(Clone, Default)]
pub struct HttpsComponent {
    clients: Clients,
}

impl HttpsComponent {
    /// A component that shares the connections of `http`.
    #[must_use]
    pub fn beside(http: &HttpComponent) -> Self {
        Self { clients: http.clients.clone() }
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "https",
    summary: "sends each exchange as an HTTP request over TLS; the response replaces the message",
    syntax: "https:host/path",
    path: path("url", PathKind::Url),
    consumes: false,
    produces: true,
    options: OPTIONS,
};

impl Component for HttpsComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(
        &self,
        uri: &EndpointUri,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        endpoint(uri, &DESCRIPTION, &self.clients, context)
    }
}
