//! The listener that the settings ask for.

use router_core::error::BoxError;
use tracing::{info, warn};

use super::AdminListener;
use crate::settings::{AdminSettings, Environment, Listen};

/// Where the probes of Kubernetes find it.
const IN_A_POD: &str = "0.0.0.0:9876";

/// Listens where the settings say; `None`: nowhere. An address that nobody asked for and that is taken is
/// no reason not to run, because several processes on one host are nothing unusual.
///
/// # Errors
/// When the address cannot be used.
pub fn listen(
    settings: &AdminSettings,
    environment: &Environment,
) -> Result<Option<AdminListener>, BoxError> {
    let address = match settings.listen {
        Some(Listen::Off) => return Ok(None),
        Some(Listen::At(address)) => address.to_string(),
        None if environment.is_pod() => IN_A_POD.into(),
        None => AdminListener::ADDRESS.into(),
    };
    match AdminListener::bind(&address) {
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
