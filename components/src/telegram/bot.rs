//! [`Bot`]: calls of the Bot API. The token is in the address; nothing of it leaves this file.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use router_core::error::{BoxError, Chain};
use router_core::failure::{ErrorKind, Failure};
use router_core::secret::Secret;
use router_core::value::Json;
use smol_str::ToSmolStr;

use crate::http_client::{ClientSettings, HttpClients, USER_AGENT, failed, kind_of_status, read_body};

/// More than a hundred updates of any kind.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// One bot, on one server.
pub(super) struct Bot {
    token: Secret,
    base: String,
    clients: HttpClients,
    client: ClientSettings,
}

/// Why a call brought no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Telegram says no.
    #[error("Telegram responded with {code}: {description}")]
    Refused { code: u16, description: String, retry_after: Option<Duration> },
    /// Something else is in the way.
    #[error("{1}")]
    Failed(ErrorKind, String),
}

impl CallError {
    /// For the error handler of a route.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Refused { code, .. } => {
                let pause = self.retry_after();
                Failure::new(kind_of_status(code), self).code(code.to_smolstr()).retry_after(pause)
            }
            Self::Failed(kind, _) => Failure::new(kind, self),
        }
    }

    /// How long Telegram asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { code: 429, retry_after, .. } => {
                Some(retry_after.unwrap_or(Duration::from_secs(1)))
            }
            _ => None,
        }
    }
}

impl Bot {
    pub(super) fn new(token: Secret, base: &Url, clients: HttpClients) -> Self {
        let client = ClientSettings {
            connect_timeout: Duration::from_secs(10),
            follow_redirects: false,
            user_agent: USER_AGENT.into(),
            without_ca_roots: base.scheme() == "http",
        };
        Self { token, base: base.as_str().trim_end_matches('/').to_owned(), clients, client }
    }

    /// The token, if it can be one: it becomes a part of a path.
    fn token(&self) -> Result<String, BoxError> {
        let token = self.token.reveal()?;
        let sound = token.split_once(':').is_some_and(|(id, key)| {
            !id.is_empty()
                && id.bytes().all(|byte| byte.is_ascii_digit())
                && !key.is_empty()
                && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        });
        match sound {
            true => Ok(token),
            false => {
                Err(format!("the token of the bot in the {} is not of the form `123456:ABC...`", self.token)
                    .into())
            }
        }
    }

    /// The number of the bot, which is no secret.
    pub(super) fn id(&self) -> Result<String, BoxError> {
        let token = self.token()?;
        Ok(token.split(':').next().unwrap_or_default().to_owned())
    }

    /// Calls a method and returns its result.
    pub(super) async fn call(
        &self,
        method: &str,
        parameters: &Json,
        timeout: Duration,
    ) -> Result<Json, CallError> {
        let token = self.token().map_err(|error| CallError::Failed(ErrorKind::Other, error.to_string()))?;
        // Whatever a server or proxy writes into its response: not this. The number in front is no secret, and
        // what comes between may be encoded.
        let key = token.split_once(':').map_or(&*token, |(_, key)| key);
        let redact = |text: &str| text.replace(key, "<token>");
        let conversation = self.converse(&token, method, parameters);
        let result = match tokio::time::timeout(timeout, conversation).await {
            Ok(result) => result,
            Err(_) => {
                let text = format!("there was no response within {timeout:?}");
                return Err(CallError::Failed(ErrorKind::Timeout, text));
            }
        };
        let (status, response) = result.map_err(|error| {
            CallError::Failed(ErrorKind::of(&*error), redact(&Chain(&*error).to_string()))
        })?;
        let Ok(response) = Json::parse(&response) else {
            // Of a proxy in between, most likely.
            let kind = kind_of_status(status.as_u16());
            return Err(CallError::Failed(kind, format!("the response {status} was not one of Telegram")));
        };
        if response["ok"] == Json::Boolean(true) {
            return Ok(response["result"].clone());
        }
        let code = response["error_code"].as_u64().and_then(|code| code.try_into().ok());
        Err(CallError::Refused {
            code: code.unwrap_or(status.as_u16()),
            description: redact(response["description"].as_str().unwrap_or("no description")),
            retry_after: response["parameters"]["retry_after"].as_u64().map(Duration::from_secs),
        })
    }

    async fn converse(
        &self,
        token: &str,
        method: &str,
        parameters: &Json,
    ) -> Result<(StatusCode, bytes::Bytes), BoxError> {
        let url = Url::parse(&format!("{}/bot{token}/{method}", self.base))
            .map_err(|_| "there is no such address")?;
        let mut request = Request::new(Method::POST, url);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(parameters.to_string().into());
        let client = self.clients.get(&self.client)?;
        let mut response = client.execute(request).await.map_err(failed)?;
        let body = read_body(&mut response, MAX_ANSWER_BYTES).await?;
        Ok((response.status(), body))
    }
}
