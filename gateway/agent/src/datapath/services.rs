//! What is reachable before login, and what leads there.

use std::{collections::HashSet, net::SocketAddr};

use gateway_common::abi::{CAPTIVE_FAMILIES, CaptivePortal, ServiceKey};

use super::{Datapath, DatapathError, Service};

impl Datapath {
    /// Makes exactly these reachable before login. What was one and is no longer is cut off from the
    /// next packet on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_services(&mut self, services: &[Service]) -> Result<(), DatapathError> {
        let wanted: HashSet<ServiceKey> = services.iter().map(key).collect();
        let held: HashSet<ServiceKey> = self
            .services
            .dump()?
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let mut lost = false;
        let result = self.replace_services(&wanted, &held, &mut lost);
        let service_filter = wanted.iter().fold(0, |filter, key| {
            filter | ServiceKey::filter_bit(key.port, key.protocol)
        });
        // Also where that failed: what was deleted must hold for flows too.
        let settings = self.change_settings(|settings| {
            if lost || settings.service_filter != service_filter {
                // The parity is the policy's.
                settings.epoch = settings.epoch.wrapping_add(2);
            }
            settings.service_filter = service_filter;
        });
        result.and(settings)
    }

    /// Leads plain HTTP of peers that have to log in to these services, the first of each family;
    /// of a family without one, nowhere.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn set_captive(&mut self, portals: &[SocketAddr]) -> Result<(), DatapathError> {
        for family in CAPTIVE_FAMILIES {
            let portal = portals
                .iter()
                .find(|portal| portal.is_ipv4() == (family == 4));
            match portal {
                Some(portal) => {
                    let portal = CaptivePortal {
                        address: portal.ip().into(),
                        port: portal.port(),
                        pad: 0,
                    };
                    if self.captive.get(&family)? != Some(portal) {
                        self.captive.insert(&family, &portal)?;
                    }
                }
                None => {
                    self.captive.remove(&family)?;
                }
            }
        }
        Ok(())
    }

    /// Deletes before it inserts: closing never waits for room. `lost` tells whether anything was
    /// deleted, also on failure.
    fn replace_services(
        &self,
        wanted: &HashSet<ServiceKey>,
        held: &HashSet<ServiceKey>,
        lost: &mut bool,
    ) -> Result<(), DatapathError> {
        for key in held.difference(wanted) {
            *lost |= self.services.remove(key)?;
        }
        for key in wanted.difference(held) {
            self.services.insert(key, &1)?;
        }
        Ok(())
    }
}

fn key(service: &Service) -> ServiceKey {
    ServiceKey {
        address: service.addr.into(),
        port: service.port,
        protocol: service.protocol,
        pad: 0,
    }
}
