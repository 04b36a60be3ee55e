//! The listener that the settings ask for.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use router_core::error::BoxError;
use tracing::{info, warn};

use super::AdminListener;
use crate::settings::{AdminSettings, Environment, Listen};

/// Where the probes of Kubernetes find it: a pod may have addresses of both families, or of IPv6 alone, and the
/// first is for all of them. The second is for hosts without IPv6.
fn in_a_pod(port: u16) -> Vec<SocketAddr> {
    vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
}

/// Where to listen: at the first of these that can be had. None: nowhere.
fn addresses(settings: &AdminSettings, environment: &Environment) -> Vec<SocketAddr> {
    match settings.listen {
        Some(Listen::Off) => Vec::new(),
        Some(Listen::At(address)) => vec![address],
        None if environment.is_pod() => in_a_pod(AdminListener::ADDRESS.port()),
        None => vec![AdminListener::ADDRESS],
    }
}

/// Listens where the settings say; `None`: nowhere. An address that nobody asked for and that is taken is
/// no reason not to run, because several processes on one host are nothing unusual.
///
/// # Errors
/// When the address cannot be used.
pub fn listen(
    settings: &AdminSettings,
    environment: &Environment,
) -> Result<Option<AdminListener>, BoxError> {
    let addresses = addresses(settings, environment);
    let Some(address) = addresses.first() else { return Ok(None) };
    match AdminListener::bind(&*addresses) {
        Ok(listener) => {
            let address = listener.address();
            info!(%address, "probes and metrics are at http://{address}");
            if !address.ip().is_loopback() && !environment.is_pod() {
                warn!(
                    %address,
                    "the probes and metrics at {address} can be read from other hosts, by anybody (`admin.listen`)"
                );
            }
            Ok(Some(listener))
        }
        Err(error) if settings.listen.is_none() => {
            let why = format!("as {address} cannot be had: {error}; `admin.listen` sets another address");
            if environment.is_pod() {
                warn!("no probes and metrics, {why}, and the probes of this pod are not answered by this process");
            } else {
                info!("no probes and metrics, {why}");
            }
            Ok(None)
        }
        Err(error) => Err(format!(
            "cannot listen on {address} (setting `admin.listen`): {error}. Set another address, port 0 for any \
             free one, or `off`"
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn other_hosts_reach_the_listener_in_a_pod_and_where_the_settings_say_so() {
        let host = Environment::default();
        let pod = host.clone().for_pod();
        let at = |listen, environment: &Environment| addresses(&AdminSettings { listen }, environment);
        assert!(at(None, &host).iter().all(|address| address.ip().is_loopback()));
        assert!(at(None, &pod).iter().all(|address| address.ip().is_unspecified()));
        let set = SocketAddr::from(([0, 0, 0, 0], 80));
        for environment in [&host, &pod] {
            assert_eq!(at(Some(Listen::At(set)), environment), [set]);
            assert_eq!(at(Some(Listen::Off), environment), []);
        }
    }

    #[test]
    fn a_pod_answers_at_addresses_of_both_families() {
        let listener = TcpListener::bind(&*in_a_pod(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }
}
