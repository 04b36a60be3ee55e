//! [`Clients`]: one pool of connections for each distinct set of connection options.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;
use router_core::error::BoxError;

/// What makes one client different from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientSettings {
    pub(crate) connect_timeout: Duration,
    pub(crate) follow_redirects: bool,
    pub(crate) user_agent: String,
    /// Whether the client works without CA certificates; it can then speak plain HTTP alone.
    pub(crate) trusts_nobody: bool,
}

/// The clients that were needed so far. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Clients {
    clients: Arc<Mutex<HashMap<ClientSettings, Client>>>,
}

impl Clients {
    /// The client with these settings. The first call makes it, which loads the CA certificates where
    /// they are needed; a failure is not kept, so that the next call tries again.
    pub(crate) fn get(&self, settings: &ClientSettings) -> Result<Client, BoxError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(settings) {
            return Ok(client.clone());
        }
        let client = settings.build()?;
        clients.insert(settings.clone(), client.clone());
        Ok(client)
    }
}

impl ClientSettings {
    fn build(&self) -> Result<Client, reqwest::Error> {
        // Without a provider the builder would panic. When somebody else has installed one, that one
        // serves as well: the refusal of ours is no failure.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redirects = if self.follow_redirects { Policy::limited(10) } else { Policy::none() };
        let builder = Client::builder()
            .connect_timeout(self.connect_timeout)
            .redirect(redirects)
            // It would tell one host the query that was meant for another.
            .referer(false)
            .user_agent(&*self.user_agent);
        let builder = if self.trusts_nobody { builder.tls_certs_only([]) } else { builder };
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_share_a_client_and_different_ones_do_not() {
        let (clients, seconds) = (Clients::default(), Duration::from_secs);
        let settings = |timeout| ClientSettings {
            connect_timeout: timeout,
            follow_redirects: false,
            user_agent: "test".into(),
            trusts_nobody: true,
        };
        for timeout in [seconds(1), seconds(2), seconds(1)] {
            clients.clone().get(&settings(timeout)).unwrap();
        }
        assert_eq!(clients.clients.lock().unwrap().len(), 2);
    }
}
